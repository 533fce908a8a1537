"""What a configuration of `fit` asks for, read by fit's own parser; the model takes no memory, nothing is run."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.accelerators import AcceleratorRegistry
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_nlp import registry
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.cli.app import CommandLine
from lightning_nlp.cli.parser import find_mistake
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.sources import files
from lightning_nlp.data.tokenizers.config import SPECIAL, special
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.precision import check_precision
from lightning_nlp.run.directory import RunDirectory
from lightning_nlp.run.sharding import NAMED, mesh_sizes, shares, strategy_of_class
from lightning_nlp.tasks.base import TaskModule
from lightning_nlp.tasks.initial import InitialWeights
from lightning_nlp.trainer import Trainer


class PlanOnly(CommandLine):
    """Reads the command line of `fit` and makes model and data; no run directory, no Trainer that could start."""

    def instantiate_classes(self) -> None:
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")

    def after_instantiate_classes(self) -> None:
        if (source := self.settings.get("init_from")) is not None:
            initial = InitialWeights.open(source)
            self.model.config = initial.merge(self.model.config)
            self.datamodule.initial_tokenizer = initial.tokenizer

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing is run."""


@dataclass(frozen=True)
class Layout:
    """Where the ranks are, and what each holds."""

    strategy: str
    data: int
    tensor: int
    on_cpu: bool


@dataclass
class Asked:
    """A configuration, as far as a plan needs it."""

    settings: Any
    task: TaskModule
    """Built on the meta device."""
    data: TextDataModule
    layout: Layout
    precision: str
    steps: int | None
    accumulation: int
    vocabulary: str
    """Where its size comes from."""
    checkpoints: int
    """Kept of a run at most."""
    ema: bool
    notes: list[str] = field(default_factory=list)


def asked_of(args: list[str]) -> Asked:
    """Everything that ``-c CONFIG`` and the flags of `fit` decide.

    Raises:
        ConfigError: a wrong setting; one line.
    """
    try:
        line: Any = PlanOnly("fit", args)
    except MisconfigurationException as mistake:
        raise ConfigError(str(mistake)) from mistake
    except Exception as error:
        if (cause := find_mistake(error)) is not None and cause is not error:
            raise cause from None
        raise
    task, data, settings = line.model, line.datamodule, line.settings
    notes: list[str] = []
    check_precision(settings["trainer"]["precision"])
    given = {**line._get(line.config_init, "trainer"), "default_root_dir": None, "tune_allocator": False}
    # Hardware that is not on this machine can be planned for; our own settings are checked as fit checks them.
    here = {"accelerator": "cpu", "devices": 1, "num_nodes": 1, "strategy": "auto", "logger": False}
    trainer = Trainer(**{**given, **here, "precision": None, "plugins": None, "profiler": None})
    layout = layout_of(settings["trainer"], notes)
    check_places(data)
    with local_data():
        accumulation = data.plan(layout.data, 0)
        steps = steps_of(trainer, data, notes)
    size, vocabulary = vocabulary_of(task, data, settings.get("run"))
    task.config = task.config.replace(vocab_size=size)
    check_tensor_parallel(task.config, layout)
    build(task, notes)
    names = [type(callback).__name__ for callback in given["callbacks"] or []]
    kept = trainer.checkpoints.keep_last + trainer.checkpoints.keep_best
    precision = str(settings["trainer"]["precision"] or "32-true")
    return Asked(settings, task, data, layout, precision, steps, accumulation, vocabulary, kept, "EMA" in names, notes)


# Ranks --------------------------------------------------------------------------------------------------------


def layout_of(trainer: Any, notes: list[str]) -> Layout:
    """Ranks by ``trainer.devices``, ``num_nodes``, ``accelerator`` and ``strategy``.

    Raises:
        ConfigError: no such hardware, a strategy of an unknown name, or sizes that do not multiply to the ranks.
    """
    accelerator = str(trainer["accelerator"] or "auto")
    known = ["auto", "gpu", *AcceleratorRegistry.available_accelerators()]
    if accelerator not in known:
        raise ConfigError(
            f"unknown trainer.accelerator '{accelerator}'{nearest(accelerator, known)} (known: {', '.join(known)})"
        )
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not torch.cuda.is_available())
    devices, nodes = devices_of(trainer["devices"]), trainer["num_nodes"]
    if nodes < 1:
        raise ConfigError(f"trainer.num_nodes must be at least 1, not {nodes}")
    if devices is None:
        devices = 1 if on_cpu else torch.cuda.device_count()
        if not devices:
            devices = 1
            notes.append("trainer.devices auto, and no GPU here: 1 is assumed")
    name, sizes = strategy_of(trainer["strategy"], devices * nodes, notes)
    asked = (sizes.get("data_parallel_size", "auto"), sizes.get("tensor_parallel_size", 1))
    data, tensor = mesh_sizes(devices, nodes, *asked)
    shares(name, data, tensor)
    return Layout(name, data, tensor, on_cpu)


def devices_of(asked: Any) -> int | None:
    """How many ``trainer.devices`` are on a node; None: all there are.

    Raises:
        ConfigError: none, or no number of devices.
    """
    if asked in ("auto", -1, "-1", None):
        return None
    listed = asked.strip(",").split(",") if isinstance(asked, str) and "," in asked else asked
    try:
        number = len(listed) if isinstance(listed, list | tuple) else int(str(listed))
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"trainer.devices must be a number of devices from 1 on, a list, or auto, not {asked}")
    return number


def check_tensor_parallel(config: TransformerConfig, layout: Layout) -> None:
    """Raises:
    ConfigError: the tensor-parallel ranks cannot share the layers out evenly.
    """
    if layout.tensor > 1:
        from lightning_nlp.backbone.parallel import plan  # what it imports takes a second

        plan.check(config, layout.tensor, sequence=False)


def strategy_of(asked: Any, ranks: int, notes: list[str]) -> tuple[str, dict[str, Any]]:
    """Name of a strategy given by name or by class, and the sizes it was given."""
    if asked is None or asked == "auto":
        return ("ddp" if ranks > 1 else "none"), {}
    if isinstance(asked, str) and asked in NAMED:
        return asked, {"data_parallel_size": "auto", **NAMED[asked]}
    if isinstance(asked, str):
        return asked, {"tensor_parallel_size": "auto", "data_parallel_size": "auto"} if "parallel" in asked else {}
    path = str(asked["class_path"])
    given = dict(asked.get("init_args") or {})
    sizes = {name: given[name] for name in ("data_parallel_size", "tensor_parallel_size") if name in given}
    found = strategy_of_class(path)
    if found is None:
        notes.append(f"trainer.strategy {path.rpartition('.')[2]} is not known: whole copies on every rank are assumed")
    return found or "ddp", sizes


# Data ---------------------------------------------------------------------------------------------------------


def check_places(data: TextDataModule) -> None:
    """Raises:
    ConfigError: a file, folder or sample that is not there; nothing is read or built.
    """
    for name in data.mixture.sources or [""]:
        path = data.config_of(name).path
        for entry in [path] if isinstance(path, str) else path:
            if entry.startswith("sample:"):
                if (sample := entry.removeprefix("sample:")) not in registry.BUILDERS:
                    registry.load(registry.BUILDERS, sample, "sample")  # which says so
            elif not entry.startswith("hf:"):
                files.find(entry, data.config_of(name).format, data.config_of(name).pair)


@contextlib.contextmanager
def local_data() -> Iterator[None]:
    """A data directory that shows the real one and takes what reading would leave there."""
    real, before = files.data_directory().absolute(), os.environ.get("LIGHTNING_NLP_DATA")
    shadow = Path(tempfile.mkdtemp(prefix="plan-"))
    try:
        for entry in real.iterdir() if real.is_dir() else []:
            if entry.name != ".cache":
                (shadow / entry.name).symlink_to(entry)
        os.environ["LIGHTNING_NLP_DATA"] = str(shadow)
        yield
    finally:
        if before is None:
            os.environ.pop("LIGHTNING_NLP_DATA", None)
        else:
            os.environ["LIGHTNING_NLP_DATA"] = before
        shutil.rmtree(shadow)


def steps_of(trainer: Trainer, data: TextDataModule, notes: list[str]) -> int | None:
    """Optimizer steps; None, with a note, where a sample that is not built yet would have to be counted."""
    if trainer.horizon["max_epochs"] is not None:
        paths = data.source_config.path
        unbuilt = [
            entry.removeprefix("sample:")
            for entry in ([paths] if isinstance(paths, str) else paths)
            if entry.startswith("sample:")
            and not (files.data_directory() / entry.removeprefix("sample:") / "info.json").is_file()
        ]
        if unbuilt:
            notes.append(f"steps of trainer.max_epochs are not known: `lightning-nlp data build {unbuilt[0]}` first")
            return None
        data.open()
    return trainer.steps_of(data)


# Model --------------------------------------------------------------------------------------------------------


def vocabulary_of(task: TaskModule, data: TextDataModule, run: str | None) -> tuple[int, str]:
    """Size of the vocabulary, and where it is known from; no tokenizer is trained."""
    if task.config.vocab_size is not None:
        return task.config.vocab_size, "given" if data.initial_tokenizer is None else "that of --init_from"
    config = data.tokenizer_config
    kept = RunDirectory(Path(run)).tokenizer if run else None
    for path, whose in ((kept, "the run's"), (data.initial_tokenizer, "that of --init_from"), (config.path, "given")):
        if path is not None and Path(path).is_file():
            return Tokenizer.load(Path(path)).vocab_size, f"of the tokenizer {path}" if whose == "given" else whose
    added = len(config.extra_tokens) + config.sentinels
    if config.kind == "byte":
        return 256 + len(special(config)) + added, "bytes and special tokens"
    if config.kind == "char":
        return 256 + len(SPECIAL) + added, "assumed: the characters of the data are not read"
    return config.vocab_size, "asked for: the tokenizer is not trained yet"


def build(task: TaskModule, notes: list[str]) -> None:
    """Parameters without memory. A classifier whose labels only the data knows gets two."""
    for head in task.heads.values():
        if getattr(head, "labels", "none asked for") is None:
            head.labels = ["a", "b"]  # type: ignore[assignment]
            notes.append("2 classes are assumed: the labels of the data are not read")
    with torch.device("meta"):
        task.configure_model()
