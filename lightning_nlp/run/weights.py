"""Reading the weights that a :class:`~lightning_nlp.run.choice.Choice` refers to, averaged where it names several.

Averaging the last checkpoints of a run: Vaswani et al. 2017, section 6.1; Izmailov et al. 2018.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run import sharded

State = dict[str, Any]
NO_MATTER = ("dropout", "size", "init_std", "position_shift")
"""Settings of a backbone that weights do not depend on."""


def is_reference(path: str | Path) -> bool:
    """More than a plain file: weights of it, or several files."""
    return "@" in Path(path).name and not Path(path).exists()


def read(reference: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A checkpoint as plain data; code hidden in it is refused, not run.

    A plain path gives the file as it is. A reference gives what is needed to use the weights, without the state of
    optimizers: ``state_dict`` holds the weights that are meant.

    Raises:
        CheckpointError: unreadable, holding anything but plain data, or checkpoints of different models.
        ConfigError: no moving average where one is asked for.
    """
    path = Path(reference)
    if not is_reference(path):
        return load(path, map_location)
    names, _, weights = path.name.rpartition("@")
    whole = path.with_name(names)
    files = [whole] if whole.exists() else [path.with_name(name) for name in names.split("+")]
    newest = picked(load(files[-1], map_location), weights, files[-1])
    if len(files) > 1:
        states = (picked(load(file, map_location), weights, file) for file in files[:-1])
        newest["state_dict"] = average(newest, states, [file.stem for file in files])
    return newest


def load(path: Path, map_location: Any = "cpu") -> dict[str, Any]:
    """One file, or a directory of parts in the form of one."""
    if sharded.is_sharded(path):
        return sharded.read(path)
    try:
        return dict(torch.load(path, map_location=map_location, weights_only=True))
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint; all mean the same here
        raise CheckpointError(f"cannot read {path}: {str(error).splitlines()[0]}") from error


def picked(checkpoint: dict[str, Any], weights: str, file: Path) -> dict[str, Any]:
    """The checkpoint with the weights that are meant as its ``state_dict``, and without what only training needs."""
    checkpoint.pop("optimizer_states", None)
    moving = checkpoint.pop("ema", None)
    if weights == "ema" and moving is None:
        raise ConfigError(f"{file} has no moving average of its weights")
    if moving is not None and weights != "raw":
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {
            name: moving["weights"][name].to(value.dtype) if name in moving["weights"] else value
            for name, value in state.items()
        }
    return checkpoint


def average(newest: dict[str, Any], others: Any, names: list[str]) -> State:
    """The mean of the weights, summed in float64; what is no float comes from the newest.

    A tensor that several names share is averaged once, and shared again.

    Args:
        newest: the newest checkpoint.
        others: the others, oldest first; read one at a time.
        names: of all, oldest first, for messages.

    Raises:
        CheckpointError: other models.
    """
    state: State = newest["state_dict"]
    sums: dict[tuple[Any, ...], Tensor] = {}
    for value in state.values():
        if isinstance(value, Tensor) and value.is_floating_point() and identity(value) not in sums:
            sums[identity(value)] = value.to(torch.float64, copy=True)
    for label, other in zip(names, others, strict=False):
        check_same(newest, other, label, names[-1])
        seen = set()
        for name, value in state.items():
            if isinstance(value, Tensor) and value.is_floating_point() and identity(value) not in seen:
                seen.add(identity(value))
                sums[identity(value)] += other["state_dict"][name].double()
    means: dict[tuple[Any, ...], Tensor] = {}
    averaged: State = {}
    for name, value in state.items():
        key = identity(value) if isinstance(value, Tensor) else ()
        if key in sums and key not in means:
            means[key] = (sums[key] / len(names)).to(value.dtype)
        averaged[name] = means.get(key, value)
    return averaged


def identity(value: Tensor) -> tuple[Any, ...]:
    """The same for names that share one tensor."""
    return value.untyped_storage().data_ptr(), value.storage_offset(), tuple(value.shape), value.stride(), value.dtype


def check_same(newest: dict[str, Any], other: dict[str, Any], label: str, last: str) -> None:
    """Refuse to average different models with one line that names the difference."""
    refuse = f"{label} and {last} cannot be averaged: "
    if other.get("task") != newest.get("task"):
        raise CheckpointError(f"{refuse}one is a {other.get('task')}, the other a {newest.get('task')}")
    ours, theirs = (item.get("hyper_parameters", {}) for item in (newest, other))
    for part in ("backbone", "adapter"):
        for key, value in (ours.get(part) or {}).items():
            if (found := (theirs.get(part) or {}).get(key)) != value and key not in NO_MATTER:
                raise CheckpointError(f"{refuse}{part}.{key} is {found!r} in one, {value!r} in the other")
    mine, its = newest["state_dict"], other["state_dict"]
    for name in sorted(mine.keys() ^ its.keys()):
        raise CheckpointError(f"{refuse}only one has {name}")
    for name, value in mine.items():
        if isinstance(value, Tensor) and value.shape != its[name].shape:
            raise CheckpointError(f"{refuse}{name} has shape {tuple(its[name].shape)} and {tuple(value.shape)}")
