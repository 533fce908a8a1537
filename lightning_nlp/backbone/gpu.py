"""Attention kernels of CUDA devices for masks that PyTorch's plain kernel cannot say without a mask tensor.

Packed documents go to the variable-length flash kernel; windows, prefixes, biases and soft caps to FlexAttention, which
skips blocks that are wholly hidden (Dong et al. 2024).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_nlp.backbone.attention import Scoring
    from lightning_nlp.backbone.masks import AttentionMask

HALVES = (torch.float16, torch.bfloat16)


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scoring: Scoring
) -> Tensor | None:
    """The kernel that fits, or None where PyTorch's plain one, with or without a mask tensor, is right."""
    queries, keys = query.shape[2], key.shape[2]
    if (mask.plain and mask.reaches(queries, keys) and scoring.fusable and scoring.bias is None) or queries == 1:
        return None
    if dropout or scoring.vector is not None:
        return None
    documents = mask.own and mask.query_segments is not None and mask.prefix is None and mask.global_keys is None
    if documents and mask.splits and scoring.fusable and scoring.bias is None and query.dtype in HALVES:
        return documents_in_one(query, key, value, mask, scoring.scale)
    return flexible(query, key, value, mask, scoring)


def documents_in_one(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, scale: float | None, kernel: Any = None
) -> Tensor:
    """All documents of all rows in one call of the variable-length kernel; padding is left out.

    Args:
        kernel: stands in for ``torch.nn.attention.varlen.varlen_attn``, which has no CPU form.
    """
    if kernel is None:
        from torch.nn.attention.varlen import varlen_attn as kernel
    batch, heads, length, width = query.shape
    assert mask.query_segments is not None
    real = (mask.query_segments > 0).flatten()
    lengths = [stop - start for _, start, stop in mask.spans]
    ends = torch.tensor([0, *lengths], device=query.device).cumsum(0).to(torch.int32)
    flat = [x.transpose(1, 2).flatten(0, 1)[real] for x in (query, key, value)]
    before = -1 if mask.window is None else mask.window - 1
    window = (before, 0 if mask.causal else before)
    found = kernel(
        *flat, ends, ends, max(lengths), max(lengths), scale=scale, window_size=window,
        enable_gqa=key.shape[1] != heads,
    )  # fmt: skip
    output = query.new_zeros(batch * length, heads, width)
    output[real] = found
    return output.view(batch, length, heads, width).transpose(1, 2)


@cache
def compiled() -> Any:
    """FlexAttention is only fast when compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def flexible(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, scoring: Scoring, kernel: Any = None
) -> Tensor:
    """Any mask, bias and cap through FlexAttention.

    Args:
        kernel: stands in for the compiled ``flex_attention``.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    queries, keys = query.shape[2], key.shape[2]
    visible = mask.dense(queries, keys, query.device)
    rows = visible.shape[0]

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return visible[b if rows > 1 else 0, 0, q, k]

    bias = None if scoring.bias is None else scoring.bias.whole().to(query.dtype)
    cap = scoring.softcap

    def score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        return score if bias is None else score + bias[b if bias.shape[0] > 1 else 0, h, q, k]

    blocks = create_block_mask(mask_mod, rows if rows > 1 else None, None, queries, keys, device=query.device)
    run = compiled() if kernel is None else kernel
    output = run(
        query, key, value, score_mod=None if bias is None and cap is None else score_mod, block_mask=blocks,
        scale=scoring.scale, enable_gqa=key.shape[1] != query.shape[1],
    )  # fmt: skip
    return output.masked_fill(~visible.any(-1, keepdim=True), 0.0)
