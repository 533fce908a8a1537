"""``load(RUN)``: a trained task, ready to use from Python; and adapters saved alone, without their base."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import lightning_nlp
from lightning_nlp import registry
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run.choice import Choice, choose, chosen, of_file, parsed
from lightning_nlp.run.directory import RunDirectory
from lightning_nlp.run.files import fsync_tree, sha256, write_json
from lightning_nlp.run.weights import read
from lightning_nlp.tasks.adapting import base_hash, own_state
from lightning_nlp.tasks.base import TaskModule, check_state

ADAPTERS, FACTS = "adapters.safetensors", "adapters.json"


def load(run: str | Path, checkpoint: str = "best") -> TaskModule:
    """Rebuild a task with its weights and tokenizer, in evaluation mode.

    Args:
        run: a run directory, or a ``step-N.ckpt`` inside one.
        checkpoint: ``best``, ``last``, a step number, ``average:last:N`` ... (:mod:`lightning_nlp.run.choice`); of a
            ``run`` that is a file, only its ``@ema`` or ``@raw`` counts.

    Raises:
        ConfigError: no such run or checkpoint.
        CheckpointError: damaged, or made by something else.
    """
    path = Path(run)
    if not path.exists():
        raise ConfigError(f"there is no run at '{path}'")
    choice = find(path, checkpoint)
    file = choice.newest.path
    directory = RunDirectory(file.parent.parent)
    saved = read(choice.reference)
    if "task" not in saved or "hyper_parameters" not in saved:
        raise CheckpointError(f"{file} was not written by lightning_nlp")
    task = registry.load(registry.TASKS, saved["task"], "task")
    module: TaskModule = task(**saved["hyper_parameters"])
    module.configure_model()
    module.on_load_checkpoint(saved)
    module.load_state_dict(saved["state_dict"])
    if directory.tokenizer.is_file():
        tokenizer = Tokenizer.load(directory.tokenizer)
        expected = tokenizer_hash(saved)
        if expected is not None and expected != tokenizer.hash:
            raise CheckpointError(f"{directory.tokenizer} is not the tokenizer this checkpoint was trained with")
        for head in module.heads.values():
            head.tokenizer = tokenizer  # type: ignore[assignment]
    return module.eval()


def find(run: Path, checkpoint: str) -> Choice:
    """The checkpoints of a run that ``best``, ``last``, a step number or an average names, or a file itself."""
    report = lambda line: print(line, file=sys.stderr)  # noqa: E731
    if run.is_file():
        _, weights = parsed(checkpoint)
        return chosen([of_file(run)], weights, str(run))
    choice = choose(run / "checkpoints", checkpoint, report)
    if choice is None:
        raise ConfigError(f"run '{run}' has no checkpoint yet")
    if choice.averaged:
        report(str(choice))
    return choice


def tokenizer_hash(saved: dict[str, Any]) -> str | None:
    """The hash of the tokenizer a checkpoint was trained with, if its data module noted one."""
    for value in saved.values():
        if isinstance(value, dict) and isinstance(value.get("tokenizer"), str):
            return str(value["tokenizer"])
    return None


def save_adapters(task: TaskModule, directory: str | Path) -> Path:
    """Write what an adapted task does not share with its base: adapters, heads, whatever else was trained.

    ``adapters.json`` holds what builds the task, and hashes of the base's weights and of the tokenizer.

    Raises:
        ConfigError: the task has no adapter, or ``directory`` has adapters already.
    """
    if task.adapter.kind == "none" or task.backbone is None:
        raise ConfigError("the task has no adapter to save: train it with model.adapter.kind lora or bottleneck")
    target = Path(directory)
    if (target / FACTS).exists():
        raise ConfigError(f"'{target}' has adapters already: name another directory")
    state, own = task.state_dict(), own_state(task)
    base = [name for name in state if name not in own]
    target.mkdir(parents=True, exist_ok=True)
    partial = target / f".{ADAPTERS}.partial"
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in own.items()}, partial)
    fsync_tree(partial)
    os.replace(partial, target / ADAPTERS)
    tokenizer = tokenizer_of(task)
    facts = {
        "task": type(task).__name__,
        "hyper_parameters": task.plain_hyperparameters(),
        "base": {"sha256": base_hash(state, base), "tensors": sorted(base)},
        "tokenizer": None if tokenizer is None else tokenizer.hash,
        "sha256": sha256(target / ADAPTERS),
        "version": lightning_nlp.__version__,
    }
    write_json(target / FACTS, facts)  # last: without it nothing is there
    return target


def load_adapters(directory: str | Path, base: TaskModule | str | Path) -> TaskModule:
    """The task that :func:`save_adapters` wrote, on its base, in evaluation mode.

    Args:
        directory: what ``save_adapters`` wrote.
        base: the task or run (its best checkpoint) whose backbone the adapters were trained on; it is copied from.

    Raises:
        ConfigError: no adapters there, or no such run.
        CheckpointError: the files are damaged, or ``base`` has other weights or another tokenizer.
    """
    source = Path(directory)
    if not (source / FACTS).is_file():
        raise ConfigError(f"there are no adapters at '{source}' (no {FACTS})")
    try:
        facts = json.loads((source / FACTS).read_text())
        if sha256(source / ADAPTERS) != facts["sha256"]:
            raise CheckpointError(f"{source / ADAPTERS} does not match the checksum in {FACTS}")
        own = load_file(source / ADAPTERS)
        names, expected = facts["base"]["tensors"], facts["base"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"cannot read adapters at '{source}': {str(error).splitlines()[0]}") from error
    if isinstance(base, (str, Path)):
        base = load(base)
    theirs = base.state_dict()
    if missing := [name for name in names if name not in theirs]:
        raise CheckpointError(f"the adapters at '{source}' are of another base: this one has no {missing[0]}")
    if (found := base_hash(theirs, names)) != expected:
        raise CheckpointError(
            f"the adapters at '{source}' are of another base: its weights have hash {expected[:12]}, these {found[:12]}"
        )
    tokenizer = tokenizer_of(base)
    if tokenizer is not None and facts["tokenizer"] not in (None, tokenizer.hash):
        raise CheckpointError(f"the adapters at '{source}' were trained with another tokenizer than the base has")
    task: TaskModule = registry.load(registry.TASKS, facts["task"], "task")(**facts["hyper_parameters"])
    task.configure_model()
    state = {**{name: theirs[name] for name in names}, **own}
    check_state(state, task.state_dict())
    task.load_state_dict(state)
    for head in task.heads.values():
        head.tokenizer = tokenizer  # type: ignore[assignment]
    return task.eval()


def tokenizer_of(task: TaskModule) -> Tokenizer | None:
    """The tokenizer that the heads of a task share, if they have one."""
    found = (head.tokenizer for head in task.heads.values())
    return next((tokenizer for tokenizer in found if isinstance(tokenizer, Tokenizer)), None)
