"""`lightning-nlp fit | validate | test | predict`: LightningCLI with runs, precedence and exit codes of its own."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_nlp import registry, yaml_file
from lightning_nlp.callbacks.predictions import PredictionWriter
from lightning_nlp.callbacks.report import Report
from lightning_nlp.cli.instruments import add_profile, ending, tracing
from lightning_nlp.cli.parser import Parser, find_mistake
from lightning_nlp.cli.quiet import quieten
from lightning_nlp.cli.raw import config_files, first_config_stem, value_of
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.sources.files import inner_name
from lightning_nlp.errors import CheckpointError, ConfigError, DataError, TrainingError, nearest
from lightning_nlp.run import directory as run_directory
from lightning_nlp.run import exit_codes, manifest
from lightning_nlp.run.choice import Choice, choose
from lightning_nlp.run.directory import RunDirectory
from lightning_nlp.run.exit_codes import GracefulExit
from lightning_nlp.run.files import write_text
from lightning_nlp.tasks.base import TaskModule
from lightning_nlp.tasks.initial import InitialWeights
from lightning_nlp.trainer import Trainer

NEVER_SAVED = ("run", "name", "root", "overwrite", "init_from", "ckpt_path", "input", "output", "config", "profile")
RANK_MARK = "LIGHTNING_NLP_RUN"
"""Set by the launching process for the ranks it starts: they replay its command line and must not decide again."""

VERBS = {
    "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
    "validate": {"model", "dataloaders", "datamodule"},
    "test": {"model", "dataloaders", "datamodule"},
    "predict": {"model", "dataloaders", "datamodule", "return_predictions"},
}

SPLITS = {"validate": "validation", "test": "test"}
"""Verbs that write a report, and what they evaluate."""


class CommandLine(LightningCLI):
    """One verb of the command line. Precedence: defaults < the run's config < ``-c`` files in order < flags."""

    def __init__(self, verb: str, args: list[str]) -> None:
        self.verb = verb
        self.command_args = args
        self.run: RunDirectory | None = None
        self.choice: Choice | None = None
        self.checkpoint: manifest.Checkpoint | None = None
        for known in (registry.TASKS, registry.DATA, registry.CALLBACKS):
            for name in known:  # short class names work in YAML once their classes are imported
                registry.load(known, name)
        super().__init__(
            model_class=TaskModule,
            datamodule_class=TextDataModule,
            trainer_class=Trainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=1,
            save_config_callback=None,
            parser_class=Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=[verb, *args],
        )

    # Parsing --------------------------------------------------------------------------------------------------

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the verb at hand: building the other parsers would cost a second."""
        return {self.verb: VERBS[self.verb]}

    def add_arguments_to_parser(self, parser: Any) -> None:
        parser.add_argument("--run", type=str | None, help="run directory to go on with or to use")
        if self.verb == "fit":
            parser.add_argument("--name", type=str | None, help="name of a new run (default: the first -c file's stem)")
            parser.add_argument("--root", type=str, default="runs", help="where new runs are made")
            parser.add_argument("--overwrite", action="store_true", help="delete a run of the same name and start anew")
            parser.add_argument("--init_from", type=str | None, help="run or checkpoint to take weights from")
            add_profile(parser)
        if self.verb == "predict":
            parser.add_argument(
                "--input", type=str | None, help="texts: a file, a folder, hf:NAME (default: test split)"
            )
            parser.add_argument("--output", type=str | None, help="JSON lines file (default: in the run)")
            parser.add_argument("--overwrite", action="store_true", help="begin anew, whatever the output holds")

    def parse_arguments(self, parser: Any, args: Any) -> None:
        for file in config_files(self.command_args):
            yaml_file.read(Path(file), "config file")  # says what is wrong before anything else looks at it
        run = value_of(self.command_args, "--run")
        inserted: list[str] = []
        if run is not None:
            saved = RunDirectory(Path(run)).config("fit")
            if saved.is_file():
                inserted = ["--config", str(saved)]
            elif self.verb != "fit" or not config_files(self.command_args):
                known = [path.name for path in Path(run).parent.glob("*/") if path.is_dir()]
                if (Path(run) / "import.json").is_file():
                    raise ConfigError(f"run '{run}' was imported and has no data: use fit -c CONFIG --init_from {run}")
                hint = nearest(Path(run).name, known)
                raise ConfigError(f"there is no run at '{run}'{hint}")
        elif self.verb != "fit":
            raise ConfigError(f"{self.verb} needs --run RUN: the directory of a trained run")
        self.config = parser.parse_args([self.verb, *inserted, *self.command_args])
        given = self.settings["trainer"].get("callbacks")
        if isinstance(given, list):
            # A command that adds one (`+=`) and is given again, to go on or to another rank, adds it to what was saved.
            self.settings["trainer"]["callbacks"] = [each for n, each in enumerate(given) if each not in given[:n]]
        if inserted:
            before = yaml.safe_load(Path(inserted[1]).read_text())
            for part in ("model", "data"):
                was, now = (setting[part]["class_path"].rpartition(".")[2] for setting in (before, self.settings))
                if was != now:
                    raise ConfigError(f"run '{run}' has {part} {was}, this command asks for {now}")

    @property
    def settings(self) -> Any:
        return self.config[self.verb]

    def _parse_ckpt_path(self) -> None:
        """Lightning would put the checkpoint's hyperparameters over the command line here; flags win instead."""

    # The run --------------------------------------------------------------------------------------------------

    def instantiate_classes(self) -> None:
        """As Lightning's, with the run directory made in between: a wrong setting leaves none behind."""
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.enter_run()
        self.config_init[self.verb]["ckpt_path"] = self.settings["ckpt_path"]
        self.trainer = self.instantiate_trainer()

    def enter_run(self) -> None:
        """Decide the run directory and the checkpoint to start from."""
        if mark := os.environ.get(RANK_MARK):
            value = json.loads(mark)
            self.run = RunDirectory(Path(value["run"]))
            self.settings["ckpt_path"] = value["ckpt_path"]
            return
        if other_rank():  # torchrun: rank 0 makes the directory, the others only name it
            self.run = self._named_run()
        elif self.verb == "fit":
            self.run = self._fit_run()
        else:
            self.run = RunDirectory(Path(self.settings["run"]))
        self._choose_checkpoint()
        os.environ[RANK_MARK] = json.dumps(
            {"run": str(self.run.path.absolute()), "ckpt_path": self.settings.get("ckpt_path")}
        )
        if not other_rank():
            if self.verb != "fit" or self.checkpoint is None:
                self.save_config()  # before data is read; a resumed run keeps its own until training goes on
            if self.verb == "fit":
                self.run.write_status("starting")

    def _named_run(self) -> RunDirectory:
        if self.settings.get("run"):
            return RunDirectory(Path(self.settings["run"]))
        name = self.settings.get("name") or first_config_stem(self.command_args)
        if name is None:
            raise ConfigError("name the run: --name NAME, or a -c file whose stem is used")
        return RunDirectory(Path(self.settings["root"]) / run_directory.check_name(name))

    def _fit_run(self) -> RunDirectory:
        run = self._named_run()
        if self.settings.get("run") is None:
            return run_directory.create(run.path.parent, run.path.name, overwrite=self.settings["overwrite"])
        if self.settings.get("overwrite"):
            raise ConfigError("--run goes on with a run and --overwrite deletes it: give one")
        if not run.path.exists():
            return run_directory.create(run.path.parent, run.path.name)
        return run

    def _choose_checkpoint(self) -> None:
        assert self.run is not None
        report = lambda line: print(f"lightning-nlp: {line}", file=sys.stderr)  # noqa: E731
        asked, training = self.settings.get("ckpt_path"), self.verb == "fit"
        name = str(asked or ("last" if training else "best"))
        self.choice = choose(self.run.checkpoints, name, report, set_aside=not other_rank())
        if self.choice is None and (not training or asked):
            raise ConfigError(f"run '{self.run.path}' has no checkpoint yet")
        if self.choice is None:
            self.settings["ckpt_path"] = None
        else:
            self.checkpoint = self.choice.newest
            self.settings["ckpt_path"] = self.choice.to_resume(name) if training else self.choice.reference
        if self.verb == "fit" and self.checkpoint is not None and self.settings.get("init_from"):
            raise ConfigError(f"--init_from starts a run, but '{self.run.path}' has checkpoints to go on from")

    def save_config(self) -> None:
        """Write the complete configuration, reloadable with ``-c``; before any data is read."""
        assert self.run is not None
        settings = self.settings.clone()
        for key in NEVER_SAVED:
            if key in settings:
                del settings[key]
        text = self._parser(self.verb).dump(settings, skip_none=False, skip_validation=True)
        write_text(self.run.config(self.verb), text)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        assert self.run is not None
        config = {**self._get(self.config_init, "trainer"), "default_root_dir": str(self.run.path)}
        if self.verb != "fit":
            config["logger"] = False  # the curves in the run are those of its training
        else:
            config["callbacks"] = [*(config["callbacks"] or []), SaveConfig(self.save_config), *tracing(self.settings)]
        if self.verb in SPLITS:
            config["callbacks"] = [*(config["callbacks"] or []), Report()]
        if self.verb == "predict":
            config["callbacks"] = [*(config["callbacks"] or []), self._prediction_writer()]
        return Trainer(**config)

    def _prediction_writer(self) -> PredictionWriter:
        assert self.run is not None
        asked, name = self.settings.get("input"), "test"
        if asked:
            name = inner_name(Path(asked)).stem.replace("*", "")
        output = Path(self.settings.get("output") or self.run.predictions / f"{name}.jsonl")
        if asked and output.exists() and Path(asked).exists() and output.samefile(asked):
            raise ConfigError(f"--output '{output}' is the --input")
        facts = {} if self.choice is None else {"checkpoint": f"{self.choice} ({self.choice.fingerprint})"}
        return PredictionWriter(output, facts, overwrite=self.settings["overwrite"])

    def after_instantiate_classes(self) -> None:
        source = self.settings.get("init_from")
        if source is not None:
            self.model.initial = InitialWeights.open(source)
            self.datamodule.initial_tokenizer = self.model.initial.tokenizer
        if self.verb == "predict" and self.settings.get("input"):
            self.datamodule.predict_path = self.settings["input"]
        self.model.on_resolved = self.record_resolved

    def record_resolved(self, config: Any) -> None:
        """Put what the data decided into the configuration, so that it is complete when it is saved."""
        assert self.run is not None
        if self.verb != "fit" or not self.trainer.is_global_zero:
            return
        backbone = self.settings["model"]["init_args"]["backbone"]
        for name in ("vocab_size", "pad_id", "decoder_start_id"):
            backbone[name] = getattr(config, name)

    # Verbs ----------------------------------------------------------------------------------------------------

    def fit(self, **kwargs: Any) -> None:
        before = self.checkpoint.step if self.checkpoint else 0
        self.say(f"run {self.run_path}" + (f", going on from step {before}" if before else ""))
        self.trainer.fit(**kwargs)
        step = self.trainer.global_step
        if self.checkpoint is not None and step == before:
            self.say(f"run {self.run_path} is finished: {step} steps done")
        else:
            self.say(f"finished at step {step}: {self.run_path} ({self.datamodule.summary()}){ending(self.trainer)}")

    def validate(self, **kwargs: Any) -> None:
        self._evaluate("validate", kwargs)

    def test(self, **kwargs: Any) -> None:
        self._evaluate("test", kwargs)

    def _evaluate(self, verb: str, kwargs: dict[str, Any]) -> None:
        getattr(self.trainer, verb)(**{**kwargs, "verbose": False})
        if not self.trainer.is_global_zero:
            return
        assert self.run is not None and self.choice is not None
        values = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        signatures = {name: text for head in self.model.heads.values() for name, text in head.signatures().items()}
        if weights := self.choice.signature:
            names = {name.rpartition("/")[2] for name in values}
            signatures = {name: "|".join(filter(None, (signatures.get(name, ""), weights))) for name in sorted(names)}
            self.say(str(self.choice))
        for name, value in values.items():
            signature = signatures.get(name.rpartition("/")[2], "")
            print(f"{name:<24} {value:<12.6g} {signature}".rstrip())
        report = {
            "checkpoint": str(self.choice.newest.path),
            "step": self.choice.newest.step,
            "steps": self.choice.steps,
            "weights": self.choice.weights,
            "said": str(self.choice) if self.choice.signature else "",
            "metrics": values,
            "signatures": signatures,
        }
        (examples,) = (item for item in self.trainer.callbacks if isinstance(item, Report))  # type: ignore[attr-defined]
        path = examples.write(self.run.reports, f"{verb}.{SPLITS[verb]}", report)
        self.say(f"report with examples: {path}")

    def predict(self, **kwargs: Any) -> None:
        (writer,) = (item for item in self.trainer.callbacks if isinstance(item, PredictionWriter))  # type: ignore[attr-defined]
        try:
            self.trainer.predict(**{**kwargs, "return_predictions": False})
        except GracefulExit as stop:
            if stop.code != exit_codes.DONE:
                raise
            return self.say(stop.reason)
        failed = f" ({writer.failed} of them rows that could not be answered)" if writer.failed else ""
        self.say(f"{writer.written} predictions in {writer.output}{failed}")

    @property
    def run_path(self) -> Path:
        assert self.run is not None
        return self.run.path

    def say(self, text: str) -> None:
        if self.trainer.is_global_zero:
            print(text, file=sys.stderr)


class SaveConfig(Callback):
    """Saves the configuration when the first batch comes: everything that could be refused has then been accepted."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save: Callable[[], None] | None = save

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if self._save is not None and trainer.is_global_zero:
            self._save()
        self._save = None


# Entry --------------------------------------------------------------------------------------------------------


def main(argv: list[str]) -> int:
    """Run one verb; returns its exit code and records it in the run's ``status.json``."""
    quieten()
    marked = os.environ.get(RANK_MARK)
    line: CommandLine | None = None
    created: list[CommandLine] = []

    class Noted(CommandLine):
        """Remembers itself before its constructor ends, because the constructor runs the whole command."""

        def enter_run(self) -> None:
            created.append(self)
            super().enter_run()

    code, reason = exit_codes.DONE, "finished"
    try:
        line = Noted(argv[0], argv[1:])
    except GracefulExit as stop:
        code, reason = stop.code, stop.reason
    except (ConfigError, MisconfigurationException) as mistake:
        code, reason = exit_codes.CONFIGURATION, first_line(mistake)
    except (DataError, CheckpointError, TrainingError) as mistake:
        code, reason = getattr(mistake, "code", exit_codes.FAILED), first_line(mistake)
    except BrokenPipeError:  # `| head` has read enough: the dispatcher knows
        raise
    except KeyboardInterrupt:
        code, reason = exit_codes.INTERRUPTED, "interrupted"
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):  # --help, --print_config
            return stop.code if isinstance(stop.code, int) else exit_codes.FAILED
        code, reason = exit_codes.INTERRUPTED, "interrupted"  # Lightning leaves with 1
        if argv[0] == "predict":
            reason += ": the same command goes on from here"
    except Exception as error:  # the last door: whatever broke is shown in full and recorded
        cause = find_mistake(error)
        if cause is not None:
            code, reason = exit_codes.CONFIGURATION, first_line(cause)
        else:
            traceback.print_exc()
            code, reason = exit_codes.FAILED, f"{type(error).__name__}: {first_line(error)}"
    finally:
        if marked is None:
            os.environ.pop(RANK_MARK, None)
    line = line or (created[0] if created else None)
    if code != exit_codes.DONE and not other_rank():
        prefix = "lightning-nlp: error: " if code <= exit_codes.CONFIGURATION else "lightning-nlp: "
        print(f"{prefix}{reason}", file=sys.stderr)
    if line is not None and line.run is not None and line.verb == "fit" and not other_rank() and line.run.path.is_dir():
        trainer = getattr(line, "trainer", None)
        step = trainer.global_step if isinstance(trainer, L.Trainer) and trainer.global_step else None
        if step is not None:
            line.run.write_status("ending", step=step)
        line.run.finish(code, reason)
    return code


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def other_rank() -> bool:
    """True in every process but the first of a distributed job."""
    return any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
