"""Where the rows of a parameter lie: as a model on one device has them, and as ranks hold them.

A fused matrix (queries, keys and values) is dealt out piece by piece, so that a rank's rows are heads of its own. Its
DTensor therefore has its rows in another order than the same matrix in a checkpoint, which knows no ranks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor

Pieces = list[int]
"""Rows of the matrices that one fused parameter holds, one after the other."""


def dealt(pieces: Pieces, ranks: int) -> Tensor:
    """The order of rows in which each of ``ranks`` equal runs has its share of every piece."""
    starts = [sum(pieces[:number]) for number in range(len(pieces))]
    return torch.cat(
        [
            torch.arange(start + rank * size // ranks, start + (rank + 1) * size // ranks)
            for rank in range(ranks)
            for start, size in zip(starts, pieces, strict=True)
        ]
    )


def deal_out(parameter: Tensor, mesh: Any, placement: Placement, pieces: Pieces | None = None) -> DTensor:
    """A parameter that is whole, and equal, on every rank of ``mesh`` as a DTensor: nothing is sent.

    Args:
        parameter: any shape; may be on the meta device.
        mesh: of one dimension.
        placement: ``Shard(0)``, ``Shard(1)`` or ``Replicate()``.
        pieces: of a fused parameter that is sharded by rows.
    """
    whole = parameter.detach()
    part = whole
    if isinstance(placement, Shard):
        if pieces is not None:
            whole = whole[dealt(pieces, mesh.size()).to(whole.device)]
        parts = whole.chunk(mesh.size(), dim=placement.dim)
        part = parts[mesh.get_local_rank()].clone(memory_format=torch.contiguous_format)
    return DTensor.from_local(part, mesh, [placement], run_check=False, shape=whole.shape, stride=whole.stride())


def to_whole(value: Any, pieces: Pieces | None = None, ranks: int = 1) -> Any:
    """The tensor a model on one device would have; every rank must call this."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    if pieces is not None:
        value = value[dealt(pieces, ranks).argsort().to(value.device)]
    return value


def like(value: Tensor, parameter: Tensor, pieces: Pieces | None = None, ranks: int = 1) -> Tensor:
    """A whole tensor, equal on every rank, laid out as ``parameter`` is where it has its shape; nothing is sent."""
    if pieces is not None:
        value = value[dealt(pieces, ranks).to(value.device)]
    if not isinstance(parameter, DTensor) or value.shape != parameter.shape:
        return value
    value = value.to(parameter.device)
    # Without a source rank every rank takes its own part of what it has.
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


__all__ = ["Pieces", "Replicate", "Shard", "deal_out", "dealt", "like", "to_whole"]
