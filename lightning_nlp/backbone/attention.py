"""Scaled dot-product attention: one entry that picks the kernel from device, dtype, mask and lengths.

On a CPU in bfloat16 the fused kernel is slower than plain matrix products up to about a thousand keys, and much slower
for the single query of a decoding step; rows packed with several documents are fastest document by document.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nlp.backbone.masks import AttentionMask

PRODUCTS_LIMIT = 1024
"""Keys up to which plain matrix products are used on a CPU in bfloat16."""
PIECES_LIMIT = 256
"""Length up to which, with those products, one masked row costs less than its documents one by one."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """softmax(Q K^T * scale + mask) V (Vaswani et al. 2017, eq. 1), with grouped heads (Ainslie et al. 2023).

    Args:
        query: ``[B, H, T, Dh]``.
        key, value: ``[B, Hkv, S, Dh]``; Hkv divides H.
        mask: who sees whom. A query that sees nothing gives zeros.
        dropout: probability of dropping an attention weight.
        scale: default ``Dh ** -0.5``.

    Returns:
        ``[B, H, T, Dh]``.
    """
    short = prefers_products(query, key)
    kernel = products if short else fused
    if mask.plain:
        return kernel(query, key, value, None, mask.causal, dropout, scale)
    in_pieces = query.device.type == "cpu" and not (short and key.shape[2] <= PIECES_LIMIT)
    if in_pieces and mask.splits:
        return per_document(query, key, value, mask, dropout, scale)
    visible, empty = mask.for_kernel(query.shape[2], key.shape[2], query.device)
    output = kernel(query, key, value, visible, False, dropout, scale)
    return output if empty is None else output.masked_fill(empty, 0.0)


def prefers_products(query: Tensor, key: Tensor) -> bool:
    """True where plain matrix products beat the fused kernel."""
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return on_cpu and (query.shape[2] == 1 or key.shape[2] <= PRODUCTS_LIMIT)


def fused(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    causal: bool,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """PyTorch's kernel."""
    grouped = key.shape[1] != query.shape[1]
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible, dropout_p=dropout, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    causal: bool,
    dropout: float,
    scale: float | None,
) -> Tensor:
    """Two matrix products; the heads of a group are stacked along T, so keys and values are not repeated."""
    batch, heads, length, width = query.shape
    groups, keys = key.shape[1], key.shape[2]
    scale = width**-0.5 if scale is None else scale
    scores = (query * scale).reshape(batch, groups, -1, width) @ key.transpose(-1, -2)
    if causal:
        visible = torch.ones(length, keys, dtype=torch.bool, device=query.device).tril()
    if visible is not None:
        scores = scores.view(batch, heads, length, keys).masked_fill_(~visible, -math.inf)
    weights = scores.softmax(-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return (weights.view(batch, groups, -1, keys) @ value).view(batch, heads, length, width)


def per_document(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scale: float | None
) -> Tensor:
    """Packed rows on a CPU: each document by itself, so that nothing is computed between documents."""
    batch, heads, length, width = query.shape
    runs = [stop - start for _, start, stop, _ in mask.runs]
    # All rows become one long row [B * T, H, Dh]: one split here is one concatenation in the backward pass.
    parts = [x.transpose(1, 2).flatten(0, 1).split(runs) for x in (query, key, value)]
    outputs = []
    for (_, _, _, segment), *document in zip(mask.runs, *parts, strict=True):
        if segment == 0:
            outputs.append(torch.zeros_like(document[0]))
            continue
        q, k, v = (x.transpose(0, 1)[None] for x in document)
        kernel = products if prefers_products(q, k) else fused
        outputs.append(kernel(q, k, v, None, mask.causal, dropout, scale)[0].transpose(0, 1))
    return torch.cat(outputs).view(batch, length, heads, width).transpose(1, 2)


def reference(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """Attention as written on paper, in any dtype: what :func:`attend` is tested against, with the same arguments."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    visible = mask.dense(query.shape[2], key.shape[2], query.device)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    empty = ~visible.any(-1, keepdim=True)
    weights = scores.masked_fill(~visible, -math.inf).masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)
    return F.dropout(weights, dropout) @ value
