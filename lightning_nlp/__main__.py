"""The `lightning-nlp` command: a light dispatcher. Nothing heavy is imported before a verb needs it."""

from __future__ import annotations

import importlib
import os
import sys

import lightning_nlp
from lightning_nlp.errors import CheckpointError, ConfigError, DataError, nearest

HEAVY = {
    "fit": "train, or go on with a run",
    "validate": "metrics of a run's best checkpoint on the validation split",
    "test": "the same on the test split",
    "predict": "answers for a file of texts, as JSON lines",
}
LIGHT = {
    "generate": ("lightning_nlp.cli.generate:main", "text from a trained language model"),
    "translate": ("lightning_nlp.cli.interactive:translate_main", "standard input, a line for every line"),
    "summarise": ("lightning_nlp.cli.interactive:summarise_main", "the same in short"),
    "chat": ("lightning_nlp.cli.interactive:chat_main", "talk with a model of dialogues"),
    "import": ("lightning_nlp.cli.interop:import_main", "make a run out of a Hugging Face folder"),
    "export": ("lightning_nlp.cli.interop:export_main", "write a trained model for other libraries"),
    "plan": ("lightning_nlp.cli.plan:main", "what a run would cost: memory, FLOPs, steps, time"),
    "prepare": ("lightning_nlp.cli.prepare:main", "tokenise the data of a configuration once, into shards"),
    "data": ("lightning_nlp.cli.data_command:main", "build sample corpora, list them; look at what a model will see"),
    "tokenizer": ("lightning_nlp.cli.tokenizer_command:main", "train a tokenizer, show what one does to a text"),
    "verify": ("lightning_nlp.cli.verify:main", "prove that runs of a configuration resume exactly"),
    "sweep": ("lightning_nlp.cli.sweep_command:main", "many runs from one YAML file: compare, resume, report"),
    "list": ("lightning_nlp.cli.listing:main", "tasks, backbones, objectives, schedules, samples ..."),
}
EXAMPLES = """\
examples:
  lightning-nlp fit -c configs/quickstart.yaml                  train on text that is already on this machine
  lightning-nlp fit -c configs/quickstart.yaml --name mine --data.path my_texts/
  lightning-nlp fit --run runs/quickstart                       go on exactly where it stopped
  lightning-nlp generate --run runs/quickstart --prompt "The "
  lightning-nlp translate --run runs/translation < texts.txt    a line for every line; also summarise, and chat
"""


def overview() -> str:
    """The text of ``--help``."""
    verbs = {**HEAVY, **{name: text for name, (_, text) in LIGHT.items()}}
    lines = "\n".join(f"  {name:<10} {text}" for name, text in verbs.items())
    about = (lightning_nlp.__doc__ or "").splitlines()[0]
    return (
        f"usage: lightning-nlp VERB [OPTIONS]\n\n{about}"
        f"\n\nverbs:\n{lines}\n\n{EXAMPLES}\n`lightning-nlp VERB --help` lists the options of a verb."
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 a mistake in the command or its configuration."""
    arguments = sys.argv[1:] if argv is None else argv
    code = 0
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
    except ConfigError as mistake:
        return complain(mistake, 2)
    except (DataError, CheckpointError) as mistake:
        return complain(mistake, 1)
    except KeyboardInterrupt:
        return 130
    except SystemExit as stop:  # argparse's way out of --help
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BrokenPipeError:  # `lightning-nlp list | head` is no error; keep Python from complaining at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def dispatch(arguments: list[str]) -> int:
    """Hand the rest of the command line to its verb."""
    verb = arguments[0] if arguments else "--help"
    if verb in ("-h", "--help", "help"):
        print(overview())
        return 0
    if verb in ("-V", "--version"):
        print(f"lightning-nlp {lightning_nlp.__version__}")
        return 0
    if verb in HEAVY:
        return int(importlib.import_module("lightning_nlp.cli.app").main(arguments))
    if verb in LIGHT:
        module, _, function = LIGHT[verb][0].partition(":")
        return int(getattr(importlib.import_module(module), function)(arguments[1:]))
    verbs = [*HEAVY, *LIGHT]
    if verb.startswith("-"):
        hint = nearest(verb, ["--help", "--version"])
        raise ConfigError(f"unknown option '{verb}' before the verb{hint} (verbs: {', '.join(verbs)})")
    raise ConfigError(f"unknown verb '{verb}'{nearest(verb, verbs)} (known: {', '.join(verbs)})")


def complain(mistake: Exception, code: int) -> int:
    """One line to standard error."""
    line = (str(mistake).strip() or type(mistake).__name__).splitlines()[0]
    print(f"lightning-nlp: error: {line}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
