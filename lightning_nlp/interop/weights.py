"""How tensors of another library correspond to ours: a table of names, read in either direction."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_nlp.errors import CheckpointError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Weight:
    """One tensor of ours and what it is made of on the other side.

    Several parts are stacked along the first dimension, in this order; ``sizes`` says how many rows each has.
    """

    ours: str
    theirs: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    to_ours: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    to_theirs: Callable[[Tensor], Tensor] = field(default=lambda x: x)

    def read(self, state: State) -> Tensor:
        """Our tensor from theirs."""
        parts = [self.to_ours(state[name]) for name in self.theirs]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def write(self, tensor: Tensor) -> State:
        """Their tensors from ours."""
        parts = tensor.split(list(self.sizes)) if len(self.theirs) > 1 else (tensor,)
        return {name: self.to_theirs(part).contiguous() for name, part in zip(self.theirs, parts, strict=True)}


def transposed(ours: str, theirs: str) -> Weight:
    """A matrix that the other side keeps as ``[in, out]``."""
    return Weight(ours, (theirs,), to_ours=Tensor.t, to_theirs=Tensor.t)


def same(ours: str, theirs: str) -> Weight:
    """A tensor that is the same on both sides."""
    return Weight(ours, (theirs,))


def linear(ours: str, theirs: str, bias: bool) -> Iterator[Weight]:
    """A linear layer, or a norm, with or without a bias."""
    for name in ("weight", "bias") if bias else ("weight",):
        yield same(f"{ours}.{name}", f"{theirs}.{name}")


def stacked(ours: str, theirs: Iterable[str], sizes: Iterable[int], bias: bool) -> Iterator[Weight]:
    """Linear layers of the other side that are one layer here."""
    for name in ("weight", "bias") if bias else ("weight",):
        yield Weight(f"{ours}.{name}", tuple(f"{part}.{name}" for part in theirs), tuple(sizes))


def convert(
    state: State, table: list[Weight], expected: State, ignored: Iterable[str], where: str
) -> tuple[State, list[str]]:
    """Our state dict from theirs, in float32.

    A model without any weight of its head (a bare backbone) is fine: the head's are then missing from the result.

    Args:
        expected: our state dict, of which only shapes are looked at (it may be on the meta device).
        ignored: regular expressions of tensors that carry nothing of ours (buffers, other heads).

    Returns:
        The state, and the names that were left out.

    Raises:
        CheckpointError: tensors that are missing, misshapen, or that nothing here corresponds to, by name.
    """
    head = [name for weight in table if weight.ours.startswith("heads.") for name in weight.theirs]
    if head and not any(name in state for name in head):
        table = [weight for weight in table if not weight.ours.startswith("heads.")]
    wanted = {name for weight in table for name in weight.theirs}
    patterns = [re.compile(pattern) for pattern in ignored]
    extra = [name for name in state if name not in wanted]
    left_out = [name for name in extra if any(pattern.fullmatch(name) for pattern in patterns)]
    unexpected = [name for name in extra if name not in set(left_out)]
    missing = [name for weight in table for name in weight.theirs if name not in state]
    if missing or unexpected:
        parts = [
            f"{what} {listed(names)}" for what, names in (("missing", missing), ("unexpected", unexpected)) if names
        ]
        raise CheckpointError(f"the weights in {where} do not fit its config.json: {'; '.join(parts)}")
    check_shapes(state, table, expected, where)
    return {weight.ours: weight.read(state).float().contiguous() for weight in table}, left_out


def check_shapes(state: State, table: list[Weight], expected: State, where: str) -> None:
    """Compare their shapes with those that a model like ours would be written with.

    Raises:
        CheckpointError: misshapen tensors, by name.
    """
    right = {name: like.shape for weight in table for name, like in weight.write(expected[weight.ours]).items()}
    wrong = [
        f"{name} is {list(state[name].shape)} instead of {list(shape)}"
        for name, shape in right.items()
        if state[name].shape != shape
    ]
    if wrong:
        raise CheckpointError(f"the weights in {where} do not fit its config.json: {listed(wrong)}")


def listed(names: list[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
