"""The loss of a chunk of logits and its gradient, in one function that a compiler makes few kernels of.

On a GPU the passes over ``[rows, V]`` numbers cost more than the products that made them, where every step of the
mathematics is a pass of its own: compiled, logits are read, and their gradient is written, in their own dtype.

The gradient does not take the place of the logits: compiled by PyTorch 2.11, such a function looked labels' scores up
after they were overwritten, and its sum was 10 % off.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor


def with_gradient(
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
) -> tuple[Tensor, Tensor | None]:
    """Sum of the losses of ``logits [n, V]``, before a cap, and with ``gradient`` theirs.

    A row's loss is ``every * norm - main * score of the label - scores @ base + z_loss * norm^2 + entropy``, with
    ``norm`` the logsumexp of its scores; see :class:`~lightning_nlp.backbone.targets.Targets` for the rest.

    Args:
        keep, label, main, every: ``[n, 1]``, of ``Targets``: counted or not, label, what it gets, sum of all targets.
        base: ``[V]`` or None.

    Returns:
        A scalar in float32 or wider, and ``[n, V]`` in the dtype of the logits, or None.
    """
    raw = logits.to(torch.promote_types(logits.dtype, torch.float32))
    scores = raw if softcap is None else softcap * torch.tanh(raw / softcap)
    norm = scores.logsumexp(-1, keepdim=True)
    rows = every * norm - main * scores.gather(1, label) + z_loss * norm.square() + entropy
    if base is not None:
        rows = rows - (scores * base).sum(-1, keepdim=True)
    total = rows.where(keep, 0.0).sum()
    if not gradient:
        return total, None
    here = torch.arange(logits.shape[1], device=logits.device) == label
    slope = (every + 2 * z_loss * norm) * (scores - norm).exp() - main.where(here, 0.0)
    if base is not None:
        slope = slope - base
    if softcap is not None:
        slope = slope * (1.0 - (scores / softcap).square())
    return total, slope.where(keep, 0.0).to(logits.dtype)


@cache
def compiled() -> Any:
    """:func:`with_gradient`, compiled when it is first called."""
    return torch.compile(with_gradient)


failures: list[str] = []
"""Why compilation failed, once it has."""


def compiles(device: torch.device) -> bool:
    """A compiler for the device's kernels is usually there, and has not failed yet."""
    return device.type == "cuda" and not failures


def fused(logits: Tensor, *args: Any) -> tuple[Tensor, Tensor | None]:
    """:func:`with_gradient`, compiled on CUDA devices; where that fails it says so, and goes on without."""
    if compiles(logits.device):
        from torch._dynamo.exc import TorchDynamoException

        try:
            found: tuple[Tensor, Tensor | None] = compiled()(logits, *args)
            return found
        except TorchDynamoException as error:  # raised before anything was computed
            failures.append(str(error))
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            warnings.warn(f"the loss is not compiled, and slower for it: {reason}", stacklevel=2)
    return with_gradient(logits, *args)
