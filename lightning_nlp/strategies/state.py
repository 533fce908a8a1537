"""Between the state one process has and the same state dealt out to many: weights, and what optimizers remember."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from lightning_nlp.backbone.parallel.layout import Pieces, like, to_whole
from lightning_nlp.optim.restoring import adapt_state
from lightning_nlp.run import sharded


def canonical(value: Any, pieces: Pieces | None, ranks: int, dealt: bool, keep: bool) -> Any:
    """A tensor with its rows as a single process has them; every rank must call this.

    Args:
        value: tensor, DTensor or anything else (given back as it is).
        pieces: of a fused parameter.
        ranks: tensor-parallel ones.
        dealt: stay a DTensor with the same placements; else a whole tensor in main memory.
        keep: this rank wants the whole tensor; others get an empty one.
    """
    if not isinstance(value, Tensor):
        return value
    if dealt and isinstance(value, DTensor):
        if pieces is None:
            return value.detach()
        whole = to_whole(value.detach(), pieces, ranks)
        return distribute_tensor(whole, value.device_mesh, value.placements, src_data_rank=None)
    whole = to_whole(value.detach(), pieces, ranks)
    return whole.cpu() if keep else torch.empty(0)


def pieces_of(key: str, value: Any, parameter: Tensor, pieces: Pieces | None) -> Pieces | None:
    """``pieces`` where ``value``, state of a fused parameter, has its rows: all of them, or a number for each."""
    has_rows = isinstance(value, Tensor) and (value.shape == parameter.shape or key == "row")
    return pieces if has_rows else None


def mapped(
    optimizer: torch.optim.Optimizer,
    found: dict[str, Any],
    names: dict[int, str],
    pieces: Mapping[str, Pieces],
    change: Callable[[Any, Pieces | None], Any],
) -> dict[str, Any]:
    """An optimizer's state dict with ``change(value, pieces)`` for every value."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        number: {
            key: change(value, pieces_of(key, value, parameters[number], pieces.get(names[id(parameters[number])])))
            for key, value in values.items()
        }
        for number, values in found["state"].items()
    }
    return {**found, "state": state}


@torch.no_grad()
def fill(
    saved: Mapping[str, Tensor],
    ours: Mapping[str, Any],
    place: Path | None,
    pieces: Mapping[str, Pieces],
    ranks: int,
    prefix: str = "state_dict",
) -> None:
    """Copy saved tensors into parameters and buffers that are dealt out.

    Args:
        saved: whole tensors by name; of a directory, only their shapes.
        ours: what to fill, by the same names.
        place: the directory that holds the values, if it is one.
    """
    if place is not None:
        saved = from_directory(place, {f"{prefix}.{name}": (ours[name], pieces.get(name)) for name in saved}, ranks)
        saved = {name.removeprefix(f"{prefix}."): value for name, value in saved.items()}
        for name, value in saved.items():
            ours[name].copy_(value)
        return
    for name, value in saved.items():
        ours[name].copy_(like(value, ours[name], pieces.get(name), ranks))


def from_directory(place: Path, wanted: Mapping[str, tuple[Tensor, Pieces | None]], ranks: int) -> dict[str, Tensor]:
    """Tensors of a sharded checkpoint, laid out as the given ones are; every rank reads what it needs."""
    found: dict[str, Tensor] = {name: torch.empty_like(value.detach()) for name, (value, _) in wanted.items()}
    sharded.load_into(found, place)
    for name, (ours, pieces) in wanted.items():
        if pieces is not None:
            found[name] = like(to_whole(found[name]), ours, pieces, ranks)
    return found


def load_optimizer(
    optimizer: torch.optim.Optimizer,
    saved: dict[str, Any],
    number: int,
    names: dict[int, str],
    *,
    place: Path | None,
    pieces: Mapping[str, Pieces],
    ranks: int,
) -> None:
    """Give an optimizer the state that a run saved, whatever its number of processes was.

    Args:
        saved: as a single process has it; of a directory, only shapes.
        number: of the optimizer.
    """
    saved = adapt_state(optimizer, saved)  # its numbers are those of the run that saved it, whose groups may differ
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    ours = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parameters = dict(zip(numbers, ours, strict=True))
    if place is not None:
        wanted: dict[str, tuple[Tensor, Pieces | None]] = {}
        for index, values in saved["state"].items():
            parameter = parameters[index]
            for key, value in values.items():
                if isinstance(value, Tensor):
                    same = value.shape == parameter.shape
                    template = parameter.detach() if same else torch.empty(value.shape)
                    own = pieces_of(key, value, parameter, pieces.get(names[id(parameter)]))
                    wanted[f"optimizer_states.{number}.{index}.{key}"] = template.to(value.dtype), own
        read = from_directory(place, wanted, ranks)
        state = {
            index: {key: read.get(f"optimizer_states.{number}.{index}.{key}", value) for key, value in values.items()}
            for index, values in saved["state"].items()
        }
        optimizer.load_state_dict({**saved, "state": state})
        return

    def dealt(index: int, key: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        parameter = parameters[index]
        return like(value, parameter, pieces_of(key, value, parameter, pieces.get(names[id(parameter)])), ranks)

    state = {
        index: {key: dealt(index, key, value) for key, value in values.items()}
        for index, values in saved["state"].items()
    }
    optimizer.load_state_dict({**saved, "state": state})
