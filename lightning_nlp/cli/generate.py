"""`lightning-nlp generate`: text from a trained language model, once or in a conversation with the terminal."""

from __future__ import annotations

import argparse
import dataclasses
import sys

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.errors import ConfigError


def arguments() -> argparse.ArgumentParser:
    parser = Arguments(prog="lightning-nlp generate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, help="run directory, or a checkpoint file in one")
    parser.add_argument("--checkpoint", default="best", help="best, last or a step number (default: best)")
    parser.add_argument("--prompt", action="append", help="text to continue; may be repeated; without it, read stdin")
    parser.add_argument("--max_new_tokens", type=int, help="tokens to add at most")
    parser.add_argument("--temperature", type=float, help="0 is greedy; 1 samples from the model as it is")
    parser.add_argument("--top_k", type=int, help="sample among the k likeliest tokens")
    parser.add_argument("--top_p", type=float, help="sample among the likeliest tokens that hold this probability")
    parser.add_argument("--seed", type=int, help="of the random numbers (default: another text every time)")
    return parser


def main(argv: list[str]) -> int:
    """Print the prompt with its continuation for every prompt."""
    options = arguments().parse_args(argv)
    from lightning_nlp.cli.app import quieten

    quieten()
    import torch

    from lightning_nlp.loading import load
    from lightning_nlp.tasks.causal_lm import CausalLMHead
    from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequenceHead

    module = load(options.run, options.checkpoint)
    head = module.head
    if not isinstance(head, (CausalLMHead, SequenceToSequenceHead)):
        raise ConfigError(f"run '{options.run}' is a {type(module).__name__}: generate needs a language model")
    given = {name: getattr(options, name) for name in ("max_new_tokens", "temperature", "top_k", "top_p")}
    settings = {name: value for name, value in given.items() if value is not None}
    if "temperature" in settings and settings["temperature"] == 0:
        settings |= {"top_k": settings.get("top_k"), "top_p": settings.get("top_p")}
    generation = dataclasses.replace(head.generation, **settings, seed=options.seed)

    backbone, tokenizer = module.backbone, head.tokenizer
    if backbone is None or tokenizer is None:
        raise ConfigError(f"run '{options.run}' has no tokenizer.json: it cannot read a prompt")

    def answer(prompt: str) -> None:
        if isinstance(head, SequenceToSequenceHead):  # the answer to a text, not its continuation
            source = torch.tensor([head.encode_source(prompt)], device=backbone.embedding_weight.device)
            print(*head.answers(backbone, source, generation=generation), flush=True)
            return
        with torch.inference_mode():
            (new,) = head.continuations(backbone, [head.encode_prompt(prompt)], generation)
        print(prompt + tokenizer.decode(new), flush=True)

    for prompt in options.prompt or []:
        answer(prompt)
    if not options.prompt:
        interactive = sys.stdin.isatty()
        while True:
            if interactive:
                print("> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                break
            answer(line.rstrip("\n"))
    return 0
