"""The loss of a chunk of logits, and its gradient in their place, in one function a compiler makes two kernels of.

On a GPU the passes over ``[rows, V]`` numbers cost more than the products that made them, where every step of the
mathematics is a pass of its own: compiled, the logits are read twice and written once, in their own dtype.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor


def in_place(
    logits: Tensor,
    keep: Tensor,
    label: Tensor,
    main: Tensor,
    every: Tensor,
    base: Tensor | None,
    entropy: float,
    z_loss: float,
    softcap: float | None,
    gradient: bool,
) -> Tensor:
    """Sum of the losses of ``logits [n, V]``, before a cap; with ``gradient`` they are overwritten by theirs.

    A row's loss is ``every * norm - main * score of the label - scores @ base + z_loss * norm^2 + entropy``, with
    ``norm`` the logsumexp of its scores; see :class:`~lightning_nlp.backbone.targets.Targets` for the rest.

    Args:
        keep, label, main, every: ``[n, 1]``, of ``Targets``: counted or not, label, what it gets, sum of all targets.
        base: ``[V]`` or None.

    Returns:
        A scalar, in float32 or wider.
    """
    raw = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores = raw if softcap is None else softcap * torch.tanh(raw / softcap)
    norm = scores.logsumexp(-1, keepdim=True)
    rows = every * norm - main * scores.gather(1, label) + z_loss * norm.square() + entropy
    if base is not None:
        rows = rows - (scores * base).sum(-1, keepdim=True)
    total = rows.where(keep, 0.0).sum()
    if gradient:
        here = torch.arange(logits.shape[1], device=logits.device) == label
        slope = (every + 2 * z_loss * norm) * (scores - norm).exp() - main.where(here, 0.0)
        if base is not None:
            slope = slope - base
        if softcap is not None:
            slope = slope * (1.0 - (scores / softcap).square())
        logits.copy_(slope.where(keep, 0.0))
    return total


@cache
def compiled() -> Any:
    """:func:`in_place`, compiled when it is first called."""
    return torch.compile(in_place)


_uncompiled: list[str] = []
"""Why compilation failed, once it has."""


def compiles(device: torch.device) -> bool:
    """A compiler for the device's kernels is usually there, and has not failed yet."""
    return device.type == "cuda" and not _uncompiled


def fused(logits: Tensor, *args: Any) -> Tensor:
    """:func:`in_place`, compiled on CUDA devices; where no compiler is installed, it says so and goes on without."""
    if compiles(logits.device):
        from torch._dynamo.exc import TorchDynamoException

        try:
            found: Tensor = compiled()(logits, *args)
            return found
        except TorchDynamoException as error:  # raised before anything was computed
            _uncompiled.append(str(error))
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            warnings.warn(f"the loss is not compiled, and slower for it: {reason}", stacklevel=2)
    return in_place(logits, *args)
