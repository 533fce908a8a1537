"""Cross-entropy as (sum, count), for language models without keeping all logits.

The chunked form computes gradients in its forward pass, a block of rows at a time, into one reused buffer: three matrix
products, nothing recomputed, and memory for ``chunk_rows`` rows of logits instead of all. Log-sum-exp is in float32 (or
float64) whatever the inputs are.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORED = -100
CHUNK_BYTES = 64 * 2**20
"""Above this many bytes of float32 logits the chunked form is used."""
CHUNK_ROWS = 256


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    *,
    chunk_rows: int = CHUNK_ROWS,
    chunked: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of ``softmax(hidden @ weight.T + bias)``.

    Args:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        labels: ``[N]``; -100 is left out.
        bias: ``[V]``.
        chunk_rows: rows of logits held at a time.
        chunked: force one form; by default the size of the logits decides.

    Under autocast the products are in its dtype. Apart from that ``hidden``, ``weight`` and ``bias`` share one.

    Returns:
        Sum over counted labels and their number, two float32 scalars (float64 for float64 inputs).
    """
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        hidden, weight = (x.to(torch.get_autocast_dtype(device)) for x in (hidden, weight))
        bias = None if bias is None else bias.to(hidden.dtype)
    with torch.autocast(device, enabled=False):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        counted = labels != IGNORED
        count = counted.sum()
        if int(count) < 0.75 * labels.numel():  # rows without a label need no matrix product
            hidden, labels = hidden[counted], labels[counted]
        if chunked is None:
            chunked = labels.numel() * weight.shape[0] * 4 > CHUNK_BYTES
        if chunked:
            if not torch.is_grad_enabled():  # autograd.Function would still see tensors that require gradients
                hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
            total = ChunkedCrossEntropy.apply(hidden, weight, bias, labels, chunk_rows)
        else:
            logits = F.linear(hidden, weight, bias).to(wide)
            total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        return total, count.to(wide)


class ChunkedCrossEntropy(torch.autograd.Function):
    """See the module's text; gradients are scaled, not recomputed, in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, chunk_rows: int
    ) -> Tensor:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        needs = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden) if needs[0] else None
        # Sums over many chunks would lose digits in bfloat16.
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs[1] else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needs[2] else None
        part_of_weight = torch.empty_like(weight) if needs[1] and weight.dtype != wide else None
        total = torch.zeros((), dtype=wide, device=hidden.device)
        rows = max(1, min(chunk_rows, len(hidden)))
        buffer = torch.empty(rows, weight.shape[0], dtype=hidden.dtype, device=hidden.device)
        for start in range(0, len(hidden), rows):
            part, target = hidden[start : start + rows], labels[start : start + rows]
            logits = torch.mm(part, weight.T, out=buffer[: len(part)])
            if bias is not None:
                logits += bias
            logits = logits.to(wide)
            keep = (target != IGNORED)[:, None]
            target = target[:, None].where(keep, 0)
            norm = logits.logsumexp(-1, keepdim=True)
            total += (norm - logits.gather(1, target)).where(keep, 0.0).sum()
            if not any(needs[:3]):
                continue
            # The gradient of the loss by the logits: probabilities, less one at the label.
            gradient = logits.sub_(norm.where(keep, torch.inf)).exp_()
            gradient.scatter_add_(1, target, -keep.to(wide))
            narrow = buffer[: len(part)].copy_(gradient)
            if grad_hidden is not None:
                torch.mm(narrow, weight, out=grad_hidden[start : start + rows])
            if part_of_weight is not None and grad_weight is not None:
                grad_weight += torch.mm(narrow.T, part, out=part_of_weight)
            elif grad_weight is not None:
                grad_weight.addmm_(narrow.T, part)
            if grad_bias is not None:
                grad_bias += gradient.sum(0)
        ctx.save_for_backward(grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = weight.dtype, None if bias is None else bias.dtype
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if grad_hidden is None else grad_hidden * grad.to(grad_hidden.dtype),
            None if grad_weight is None else (grad_weight * grad).to(weight_dtype),
            None if grad_bias is None else (grad_bias * grad).to(bias_dtype),
            None,
            None,
        )


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy and number of labels for classification heads.

    Args:
        logits: ``[N, C]``.
        labels: ``[N]``; -100 is left out.

    Returns:
        Two float32 scalars (float64 for float64 logits).
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    total = F.cross_entropy(logits.to(wide), labels, ignore_index=IGNORED, reduction="sum")
    return total, (labels != IGNORED).sum().to(wide)
