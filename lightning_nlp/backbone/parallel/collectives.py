"""Collectives that autograd differentiates, and the sequence they cut (Shoeybi et al. 2019; Korthikanti et al. 2022).

Tensors between the parallel parts of a block are either *whole* on every rank (and equal), or hold this rank's rows of
the sequence. Functions are named for their way forwards; gradients come back the opposite way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

Group = Any
"""A ``torch.distributed`` process group."""


def is_spread(tensor: Any) -> bool:
    """True for a ``DTensor``, whose package takes a second to import and other runs do not need.

    Asked of the class: compiled code does not see methods of a parameter that is one.
    """
    return hasattr(type(tensor), "to_local")


def local(parameter: Any) -> Any:
    """This rank's part of a DTensor, sharing its memory; anything else as it is."""
    return parameter.to_local() if is_spread(parameter) else parameter


class Way(torch.autograd.Function):
    """A tensor goes one way, and its gradient comes back another."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.back = back
        return there(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.back(gradient), None, None


def unchanged(x: Tensor) -> Tensor:
    """The same numbers, as a tensor of its own for autograd."""
    return x.view_as(x)


def copied(x: Tensor, group: Group) -> Tensor:
    """Whole on every rank, used differently by each: gradients are summed over the ranks."""
    return Way.apply(x, unchanged, partial(summed, group=group))


def added(x: Tensor, group: Group) -> Tensor:
    """Partial sums on every rank, whole afterwards."""
    return Way.apply(x, partial(summed, group=group), unchanged)


def summed(x: Tensor, group: Group) -> Tensor:
    """The sum over the group, in a new tensor."""
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=group)
    return x


class Sequence:
    """A sequence cut into equal parts, one a rank; the last parts are filled up with zeros where it does not divide.

    Args:
        group: the ranks.
    """

    def __init__(self, group: Group) -> None:
        self.group, self.ranks, self.rank = group, dist.get_world_size(group), dist.get_rank(group)
        self.length = 0
        """T, of the sequence that was cut last."""
        self.on = True

    def cut(self, x: Tensor, on: bool = True) -> Tensor:
        """Of whole ``x [B, T, D]``, this rank's ``[B, ceil(T / ranks), D]``.

        With ``on`` False, all stays whole until the next cut: the few tokens of a decoding step are not worth it.
        """
        self.length, self.on = x.shape[1], on
        if not on:
            return x
        return Way.apply(x, self.own, self._whole())

    def joined(self, x: Tensor) -> Tensor:
        """The whole ``[B, T, D]`` of parts, to be used the same way by all ranks."""
        if not self.on:
            return x
        return Way.apply(x, self._whole(), self.own)

    def gathered(self, x: Tensor) -> Tensor:
        """The whole ``[B, T, D]`` of parts, to be used differently by each rank."""
        if not self.on:
            return copied(x, self.group)
        return Way.apply(x, self._whole(), self.reduced)

    def scattered(self, x: Tensor) -> Tensor:
        """Partial sums ``[B, T, D]`` added up, of which this rank keeps its part."""
        if not self.on:
            return added(x, self.group)
        return Way.apply(x, self.reduced, self._whole())

    # Without gradients --------------------------------------------------------------------------------------------

    def own(self, x: Tensor) -> Tensor:
        """This rank's part of ``x``."""
        return self._filled(x).chunk(self.ranks, dim=1)[self.rank].contiguous()

    def whole(self, x: Tensor, length: int) -> Tensor:
        """All parts, one after the other, without what filled the last ones up."""
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(self.ranks)]
        dist.all_gather(parts, x.contiguous(), group=self.group)
        return torch.cat(parts, dim=1)[:, :length]

    def _whole(self) -> Callable[[Tensor], Tensor]:
        """:meth:`whole` with the length of now: the next pass may be of another before this one's gradients come."""
        return partial(self.whole, length=self.length)

    def reduced(self, x: Tensor) -> Tensor:
        """This rank's part of the sum of ``x`` over all ranks."""
        if dist.get_backend(self.group) == "gloo":  # which adds and scatters no slower in two steps
            return self.own(summed(x, self.group))
        parts = torch.stack(self._filled(x).chunk(self.ranks, dim=1))
        output = torch.empty_like(parts[0])
        dist.reduce_scatter_tensor(output, parts, group=self.group)
        return output

    def _filled(self, x: Tensor) -> Tensor:
        missing = -x.shape[1] % self.ranks
        return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x
