"""The loss of rows of logits a chunk at a time, with the gradients made in the forward pass.

How large a chunk is, and what is worth waiting for, depends on the device. A CPU works in its caches, and knows every
number at once. A GPU wants few large products, fewer passes over memory, and a host that never waits for a number.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_nlp.backbone.gpu_loss import fused
from lightning_nlp.backbone.targets import Targets

CHUNK_BYTES, MOST_ROWS, FEWEST_ROWS = 26_000_000, 512, 64
"""Logits held at a time on a CPU: more of them save no time, fewer make narrow products."""
WIDE_ROWS, WEIGHT_ROWS = 32, 2048
"""Rows of scores, and of the weights' gradient, worked on at a time on a CPU; elsewhere kernels cost more."""
GPU_BYTES, GPU_SHARE, GPU_FEWEST_ROWS = 1_700_000_000, 32, 512
"""Elsewhere: 16384 rows of 50k tokens in bfloat16, but at most that share of the device's memory. Their gradient takes
as much again."""


def runs_ahead(device: torch.device) -> bool:
    """True for devices that compute while the host goes on, so that to look at a number is to wait for them."""
    return device.type != "cpu"


def gpu_bytes(device: torch.device) -> int:
    """Logits held at a time on a device that runs ahead."""
    if device.type != "cuda":
        return GPU_BYTES
    return min(GPU_BYTES, torch.cuda.get_device_properties(device).total_memory // GPU_SHARE)


def rows_at_once(hidden: Tensor, vocabulary: int) -> int:
    """Rows of logits that fit the buffer; on a GPU a power of two, so that chunks of a batch are mostly alike."""
    row = vocabulary * hidden.element_size()
    return gpu_rows(row, gpu_bytes(hidden.device)) if runs_ahead(hidden.device) else cpu_rows(row)


def gpu_rows(row: int, room: int) -> int:
    """Rows of ``row`` bytes in a buffer of ``room``."""
    return max(GPU_FEWEST_ROWS, 1 << max(room // row, 1).bit_length() - 1)


def cpu_rows(row: int) -> int:
    """Rows of ``row`` bytes in a CPU's buffer."""
    return max(FEWEST_ROWS, min(MOST_ROWS, CHUNK_BYTES // row))


class RowLoss(Protocol):
    """A loss of rows of scores that also knows its gradient."""

    def total(self, scores: Tensor) -> Tensor:
        """Sum over all rows of ``scores [N, V]``, for autograd to differentiate."""
        ...

    def chunk(self, scores: Tensor, start: int, gradient: bool) -> Tensor:
        """Sum over rows ``start ...``; with ``gradient``, ``scores [n, V]`` is overwritten by the gradient."""
        ...


class ChunkedLoss(torch.autograd.Function):
    """See the module's text; gradients are scaled, not recomputed, in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        rows: RowLoss,
        scale: float,
        softcap: float | None,
        chunk_rows: int,
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        needs = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if needs[0] else None
        # Sums over many chunks would lose digits in bfloat16.
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs[1] else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needs[2] else None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        size = max(1, min(chunk_rows, len(hidden)))
        buffer = torch.empty(size, weight.shape[0], dtype=hidden.dtype, device=hidden.device)
        gradient = any(needs[:3])
        at_once = runs_ahead(hidden.device) and type(rows) is Targets  # not a sub-class, whose ranks confer
        few = size if runs_ahead(hidden.device) else min(size, WIDE_ROWS)
        scratch = None
        if wide != hidden.dtype and not at_once:
            scratch = torch.empty(few, weight.shape[0], dtype=wide, device=hidden.device)
        for start in range(0, len(hidden), size):
            part = hidden[start : start + size]
            # With beta = 0, what stood there before does not count.
            logits = buffer[: len(part)].addmm_(part, weight.T, beta=0, alpha=scale)
            if bias is not None:
                logits += bias
            if at_once:
                found, logits = together(rows, logits, start, softcap, gradient, grad_bias)
                total += found
            else:
                stepwise(rows, logits, start, softcap, gradient, grad_bias, total, few, scratch)
            if grad_hidden is not None:
                grad_hidden[start : start + size].addmm_(logits, weight, beta=0, alpha=scale)
            if grad_weight is not None:
                add_product(grad_weight, logits, part, scale)
        ctx.gradients = grad_hidden, grad_weight, grad_bias
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the chunked loss hands its gradients out once: call it again for a second backward")
        (grad_hidden, grad_weight, grad_bias), ctx.gradients = ctx.gradients, None
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            # One dimension keeps ``grad`` from being rounded to bfloat16 first, which would scale all of it wrongly.
            None if grad_hidden is None else grad_hidden.copy_(grad_hidden * grad.reshape(1)),
            None if grad_weight is None else grad_weight.mul_(grad).to(weight_dtype),
            None if grad_bias is None else grad_bias.mul_(grad).to(bias_dtype),
            None,
            None,
            None,
            None,
        )


def together(
    rows: Any, logits: Tensor, start: int, softcap: float | None, gradient: bool, grad_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum over ``logits [n, V]`` of ``rows`` (:class:`Targets`) from ``start`` on, in few passes, and their gradient.

    Without ``gradient`` the logits are given back. Its sum over the rows is added to ``grad_bias [V]``.
    """
    targets = rows._rows(start, start + len(logits))
    total, slope = fused(logits, *targets, rows.base, rows.entropy, rows.z_loss, softcap, gradient)
    if slope is None:
        return total, logits
    if grad_bias is not None:
        grad_bias += slope.sum(0, dtype=grad_bias.dtype)
    return total, slope


def stepwise(
    rows: RowLoss,
    logits: Tensor,
    start: int,
    softcap: float | None,
    gradient: bool,
    grad_bias: Tensor | None,
    total: Tensor,
    few: int,
    scratch: Tensor | None,
) -> None:
    """The same for any kind of loss, ``few`` rows at a time: the sum is added to ``total``.

    With ``gradient`` theirs takes the place of the logits.

    A wider dtype, a cap and a teacher need tensors of their own beside the scores: few rows keep them small.

    Args:
        scratch: ``[few, V]`` in the wider dtype; None where ``logits`` are in it.
    """
    for first in range(0, len(logits), few):
        narrow = logits[first : first + few]
        scores, slope = narrow if scratch is None else scratch[: len(narrow)].copy_(narrow), None
        if softcap is not None:
            scores.div_(softcap).tanh_()
            slope = scores.square().neg_().add_(1.0)
            scores.mul_(softcap)
        total += rows.chunk(scores, start + first, gradient)
        if gradient:
            by_score = scores if slope is None else scores.mul_(slope)
            if scratch is not None:
                narrow.copy_(by_score)
            if grad_bias is not None:
                grad_bias += by_score.sum(0)


def add_product(sums: Tensor, left: Tensor, right: Tensor, scale: float) -> None:
    """``sums [V, D] += scale * left.T @ right``; a product in a narrower dtype is made and added slice by slice."""
    if left.dtype == sums.dtype:
        sums.addmm_(left.T, right, alpha=scale)
        return
    rows = len(sums) if runs_ahead(sums.device) else min(len(sums), WEIGHT_ROWS)
    product = torch.empty(rows, right.shape[1], dtype=left.dtype, device=left.device)
    for columns, some in zip(left.split(rows, 1), sums.split(rows), strict=True):
        some += product[: len(some)].addmm_(columns.T, right, beta=0, alpha=scale)
