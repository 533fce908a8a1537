"""Scaled dot-product attention: one entry that picks the kernel from device, dtype, mask and lengths."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nlp.backbone.masks import AttentionMask

PLAIN_LIMIT = 1024
"""On a CPU in bfloat16, plain matrix products beat the fused kernel up to about this many keys."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """softmax(Q K^T * scale + mask) V (Vaswani et al. 2017, eq. 1), with grouped heads.

    Args:
        query: ``[B, H, T, Dh]``.
        key, value: ``[B, Hkv, S, Dh]``; Hkv divides H.
        mask: who sees whom. A query that sees nothing gives zeros.
        dropout: probability of dropping an attention weight.
        scale: default ``Dh ** -0.5``.

    Returns:
        ``[B, H, T, Dh]``.
    """
    on_cpu = query.device.type == "cpu"
    if on_cpu and query.dtype == torch.bfloat16 and key.shape[2] <= PLAIN_LIMIT:
        return reference(query, key, value, mask, dropout, scale)
    if mask.plain:
        grouped = key.shape[1] != query.shape[1]
        return F.scaled_dot_product_attention(
            query, key, value, dropout_p=dropout, is_causal=mask.causal, scale=scale, enable_gqa=grouped
        )
    if on_cpu and mask.own and len(mask.spans) > len(query):
        return per_document(query, key, value, mask, dropout, scale)
    return with_mask(query, key, value, mask, dropout, scale)


def expand_heads(key: Tensor, heads: int) -> Tensor:
    """``[B, Hkv, S, Dh]`` -> ``[B, H, S, Dh]`` by repeating each group."""
    return key if key.shape[1] == heads else key.repeat_interleave(heads // key.shape[1], dim=1)


def reference(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """Attention as written on paper, in any dtype; every other kernel is tested against this one."""
    key, value = expand_heads(key, query.shape[1]), expand_heads(value, query.shape[1])
    scores = (query * (scale or query.shape[-1] ** -0.5)) @ key.transpose(-1, -2)
    if mask.causal or mask.query_segments is not None:
        visible = mask.dense(query.shape[2], key.shape[2], query.device)
        scores = scores.masked_fill(~visible, -math.inf)
        # A row without any visible key would be softmax of nothing: NaN. It gives zeros, and no gradient.
        empty = ~visible.any(-1, keepdim=True)
        weights = scores.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)
    else:
        weights = scores.softmax(-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return weights @ value


def with_mask(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scale: float | None
) -> Tensor:
    """The fused kernel with a boolean mask; rows that see nothing are zeroed after it."""
    visible = mask.dense(query.shape[2], key.shape[2], query.device)
    empty = ~visible.any(-1, keepdim=True)
    # An empty row looks at everything inside the kernel, whose softmax of nothing would be NaN, and is dropped after.
    grouped = key.shape[1] != query.shape[1]
    output = F.scaled_dot_product_attention(
        query, key, value, attn_mask=visible | empty, dropout_p=dropout, scale=scale, enable_gqa=grouped
    )
    return output.masked_fill(empty, 0.0)


def per_document(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scale: float | None
) -> Tensor:
    """Packed rows on a CPU: each document by itself, so that nothing is computed between documents."""
    grouped = key.shape[1] != query.shape[1]
    rows: list[list[Tensor]] = [[] for _ in range(len(query))]
    ends = [0] * len(query)
    for row, start, stop in mask.spans:
        if start > ends[row]:  # padding before or between documents
            rows[row].append(query.new_zeros(query.shape[1], start - ends[row], query.shape[3]))
        part = slice(start, stop)
        rows[row].append(
            F.scaled_dot_product_attention(
                query[row, None, :, part],
                key[row, None, :, part],
                value[row, None, :, part],
                dropout_p=dropout,
                is_causal=mask.causal,
                scale=scale,
                enable_gqa=grouped,
            )[0]
        )
        ends[row] = stop
    for row, end in enumerate(ends):
        if end < query.shape[2]:
            rows[row].append(query.new_zeros(query.shape[1], query.shape[2] - end, query.shape[3]))
    return torch.stack([torch.cat(parts, dim=1) for parts in rows])
