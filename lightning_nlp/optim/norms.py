"""The norm of all gradients, also where each process has a part of them, and clipping by it."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_nlp.backbone.parallel.collectives import is_spread, local


def total_norm(gradients: list[Any]) -> Tensor:
    """Euclidean norm of all gradients together, the same on every process; every part counts once.

    Args:
        gradients: tensors, or DTensors of one mesh, sharded along any of its dimensions.
    """
    if not any(is_spread(gradient) for gradient in gradients):
        if not gradients:
            return torch.zeros(())
        return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    parts: dict[tuple[int, ...], list[Tensor]] = {}
    mesh = None
    for gradient in gradients:
        mesh = gradient.device_mesh
        sharded = tuple(number for number, placement in enumerate(gradient.placements) if not placement.is_replicate())
        parts.setdefault(sharded, []).append(local(gradient))
    assert mesh is not None
    total = torch.zeros((), dtype=torch.float32, device=local(gradients[0]).device)
    for sharded in sorted(parts):  # in one order on all processes
        norms = torch._foreach_norm(parts[sharded], dtype=torch.float32)
        squares = torch.stack(list(norms)).square().sum()
        for number in sharded:
            dist.all_reduce(squares, group=mesh.get_group(number))
        total += squares
    return total.sqrt()


def scale(gradients: list[Any], factor: Tensor) -> None:
    """Multiply all gradients in place by a number in a tensor; nothing is sent, nobody waits for it."""
    if gradients:
        parts = [local(gradient) for gradient in gradients]
        torch._foreach_mul_(parts, factor.to(parts[0].device))


def clip(gradients: list[Any], largest: float) -> Tensor:
    """Scale all gradients so that their norm is at most ``largest``; gives the norm before (Pascanu et al. 2013)."""
    norm = total_norm(gradients)
    scale(gradients, (largest / (norm + 1e-6)).clamp(max=1.0))
    return norm
