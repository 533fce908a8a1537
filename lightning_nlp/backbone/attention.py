"""Attention: one entry that picks the kernel from device, dtype, mask and lengths.

On a CPU in bfloat16 the fused kernel is slower than plain matrix products up to about a thousand keys, and much slower
for the single query of a decoding step; rows packed with several documents are fastest document by document, and a
narrow window block by block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nlp.backbone import gpu
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.score_bias import ScoreBias

PRODUCTS_LIMIT = 1024
"""Keys up to which plain matrix products are used on a CPU in bfloat16."""
PIECES_LIMIT = 256
"""Length up to which, with those products, one masked row costs less than its documents one by one."""
BAND_BLOCK = 64
"""Fewest queries in a block of windowed attention: smaller ones make too many small products."""


@dataclass(frozen=True)
class Scoring:
    """How a query is compared with a key."""

    scale: float | None = None
    """Factor of dot products; default ``Dh ** -0.5``."""
    softcap: float | None = None
    """Scores become ``cap * tanh(score / cap)``."""
    vector: Tensor | None = None
    """``[H, Dh]``: additive scores ``v^T tanh(q + k)`` (Bahdanau et al. 2015) instead of dot products."""
    bias: ScoreBias | None = None
    """Added to the scores, by distance; after the cap."""

    @property
    def fusable(self) -> bool:
        """PyTorch's kernel can do it."""
        return self.softcap is None and self.vector is None


PLAIN = Scoring()


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float = 0.0, scoring: Scoring = PLAIN
) -> Tensor:
    """softmax(scores + mask) V (Vaswani et al. 2017, eq. 1), with grouped heads (Ainslie et al. 2023).

    Args:
        query: ``[B, H, T, Dh]``.
        key, value: ``[B, Hkv, S, Dh]``; Hkv divides H.
        mask: who sees whom. A query that sees nothing gives zeros.
        dropout: probability of dropping an attention weight.
        scoring: how a query is compared with a key; scaled dot products by default.

    Returns:
        ``[B, H, T, Dh]``.
    """
    if query.is_cuda:
        # Without tensors there is nothing to decide by, and a compiled block keeps attention in its graph.
        simple = mask.query_segments is None and mask.prefix is None and mask.window is None
        if not (simple and scoring.fusable and scoring.bias is None):
            return on_gpu(query, key, value, mask, dropout, scoring)
    elif mask.splits and not (prefers_products(query, key) and key.shape[2] <= PIECES_LIMIT):
        return per_document(query, key, value, mask, dropout, scoring)
    return one_piece(query, key, value, mask, dropout, scoring)


@gpu.outside_of_graphs
def on_gpu(query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scoring: Scoring) -> Tensor:
    """:func:`attend` of CUDA devices: a kernel of their own, or PyTorch's plain one."""
    found = gpu.attend(query, key, value, mask, dropout, scoring)
    return one_piece(query, key, value, mask, dropout, scoring) if found is None else found


def one_piece(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scoring: Scoring
) -> Tensor:
    """:func:`attend` without a look at documents."""
    queries, keys = query.shape[2], key.shape[2]
    kernel = products if not scoring.fusable or prefers_products(query, key) else fused
    reaches = mask.reaches(queries, keys)
    if mask.plain and reaches and (scoring.bias is None or not mask.causal):
        return kernel(query, key, value, None, mask.causal, dropout, scoring)
    if mask.own and mask.window is not None and not reaches and worth_a_band(mask, queries, scoring):
        return banded(query, key, value, mask, dropout, scoring)
    visible, empty = mask.for_kernel(queries, keys, query.device)
    output = kernel(query, key, value, visible, False, dropout, scoring)
    return output if empty is None else output.masked_fill(empty, 0.0)


def prefers_products(query: Tensor, key: Tensor) -> bool:
    """True where plain matrix products beat the fused kernel."""
    on_cpu = query.device.type == "cpu" and query.dtype == torch.bfloat16
    return on_cpu and (query.shape[2] == 1 or key.shape[2] <= PRODUCTS_LIMIT)


def fused(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, causal: bool, dropout: float, scoring: Scoring
) -> Tensor:
    """PyTorch's kernel."""
    if scoring.bias is not None:
        visible = scoring.bias.masked(visible, query.dtype)
    return F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=visible,
        dropout_p=dropout,
        is_causal=causal,
        scale=scoring.scale,
        enable_gqa=key.shape[1] != query.shape[1],
    )


def products(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor | None, causal: bool, dropout: float, scoring: Scoring
) -> Tensor:
    """Two matrix products; the heads of a group are stacked along T, so keys and values are not repeated."""
    batch, heads, length, width = query.shape
    groups, keys = key.shape[1], key.shape[2]
    scores = compare(query, key, scoring)
    if scoring.bias is not None:
        scores = scores + scoring.bias.whole().to(scores.dtype)
    if causal:
        visible = torch.ones(length, keys, dtype=torch.bool, device=query.device).tril()
    if visible is not None:
        scores = scores.masked_fill_(~visible, -math.inf)
    weights = scores.softmax(-1)
    if dropout:
        weights = F.dropout(weights, dropout)
    return (weights.view(batch, groups, -1, keys) @ value).view(batch, heads, length, width)


def compare(query: Tensor, key: Tensor, scoring: Scoring) -> Tensor:
    """Scores ``[B, H, T, S]`` before bias and mask. Additive ones hold ``B H T S Dh`` numbers: for short texts."""
    batch, heads, length, width = query.shape
    groups, keys = key.shape[1], key.shape[2]
    if scoring.vector is not None:
        summed = query[:, :, :, None] + key.repeat_interleave(heads // groups, dim=1)[:, :, None]
        scores = (summed.tanh() @ scoring.vector.to(query.dtype)[:, None, :, None])[..., 0]
    else:
        scale = width**-0.5 if scoring.scale is None else scoring.scale
        scores = (query * scale).reshape(batch, groups, -1, width) @ key.transpose(-1, -2)
        scores = scores.view(batch, heads, length, keys)
    return scores if scoring.softcap is None else scoring.softcap * (scores / scoring.softcap).tanh()


def per_document(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scoring: Scoring
) -> Tensor:
    """Packed rows on a CPU: each document by itself, so that nothing is computed between documents."""
    batch, heads, length, width = query.shape
    runs = [stop - start for _, start, stop, _ in mask.runs]
    # All rows become one long row [B * T, H, Dh]: one split here is one concatenation in the backward pass.
    parts = [x.transpose(1, 2).flatten(0, 1).split(runs) for x in (query, key, value)]
    outputs = []
    for (row, start, stop, segment), *document in zip(mask.runs, *parts, strict=True):
        if segment == 0:
            outputs.append(torch.zeros_like(document[0]))
            continue
        q, k, v = (x.transpose(0, 1)[None] for x in document)
        own = scoring if scoring.bias is None else replace(scoring, bias=scoring.bias.piece(start, stop))
        outputs.append(one_piece(q, k, v, mask.piece(row, start, stop), dropout, own)[0].transpose(0, 1))
    return torch.cat(outputs).view(batch, length, heads, width).transpose(1, 2)


def worth_a_band(mask: AttentionMask, length: int, scoring: Scoring) -> bool:
    """True where a window is so narrow that computing a band of the scores saves time."""
    assert mask.window is not None
    sides = 1 if mask.causal else 2
    biased_far = scoring.bias is not None and mask.global_keys is not None
    return length >= 2 * (max(mask.window, BAND_BLOCK) + sides * mask.window) and not biased_far


def banded(query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scoring: Scoring) -> Tensor:
    """A window, block by block: a block of queries sees the keys around it, and the global ones from anywhere.

    Time and memory grow with ``T * window`` instead of ``T * T`` (Beltagy et al. 2020).
    """
    assert mask.window is not None
    batch, length = query.shape[0], query.shape[2]
    reach = mask.window - 1
    block = max(mask.window, BAND_BLOCK)
    blocks = -(-length // block)
    after = 0 if mask.causal and mask.prefix is None else reach
    span = reach + block + after

    def in_blocks(x: Tensor) -> Tensor:
        """``[B, G, T, Dh] -> [B * blocks, G, span, Dh]``, overlapping."""
        x = F.pad(x, (0, 0, reach, blocks * block - length + after))
        return x.unfold(2, span, block).permute(0, 2, 1, 4, 3).flatten(0, 1)

    q = F.pad(query, (0, 0, 0, blocks * block - length)).unflatten(2, (blocks, block)).transpose(1, 2).flatten(0, 1)
    k, v = in_blocks(key), in_blocks(value)
    device = query.device
    at = torch.arange(blocks, device=device)[:, None] * block
    queries, keys = at + torch.arange(block, device=device), at + torch.arange(span, device=device) - reach
    inside = keys.clamp(0, length - 1)
    visible = band_visible(mask, queries.clamp(max=length - 1), inside, near=True)
    visible = visible & ((keys >= 0) & (keys < length))[None, :, None, :]
    if mask.global_keys is not None:
        places, real = global_places(mask.global_keys)
        rows = torch.arange(len(places), device=device)[:, None]
        pick = [x.expand(batch, -1, -1, -1) if len(places) == 1 else x for x in (key, value)]
        far = [x.transpose(1, 2)[rows.expand(-1, places.shape[1]), places].transpose(1, 2) for x in pick]
        far = [x.expand(batch, -1, -1, -1) for x in far]
        k, v = (torch.cat((x, y.repeat_interleave(blocks, dim=0)), dim=2) for x, y in zip((k, v), far, strict=True))
        seen = band_visible(mask, queries.clamp(max=length - 1), places, near=False) & real[:, None, None, :]
        whole = torch.broadcast_shapes(visible.shape[:1], seen.shape[:1])
        visible = torch.cat((visible.expand(*whole, -1, -1, -1), seen.expand(*whole, -1, -1, -1)), dim=-1)
    visible = visible.expand(batch, -1, -1, -1).flatten(0, 1)[:, None]
    empty = ~visible.any(-1, keepdim=True)
    if scoring.bias is not None:
        scoring = replace(scoring, bias=scoring.bias.at(keys[:1, None, :] - queries[:1, :, None]))
    kernel = products if not scoring.fusable or prefers_products(q, k) else fused
    output = kernel(q, k, v, visible | empty, False, dropout, scoring).masked_fill(empty, 0.0)
    return output.unflatten(0, (batch, blocks)).transpose(1, 2).flatten(2, 3)[:, :, :length]


def band_visible(mask: AttentionMask, queries: Tensor, keys: Tensor, near: bool) -> Tensor:
    """Visibility of ``keys [blocks or B, S]`` to ``queries [blocks, T]``: ``[B or 1, blocks, T, S]``.

    ``near``: keys belong to blocks, and within the window; otherwise to rows, and outside of it.
    """
    k = keys[None, :, None, :] if near else keys[:, None, None, :]
    distance = queries[None, :, :, None] - k
    visible = (distance.abs() < mask.window) if near else (distance.abs() >= mask.window)  # type: ignore[operator]
    rows = torch.arange(len(keys), device=keys.device)[:, None]

    def of_keys(x: Tensor) -> Tensor:
        """``x [B, T]`` at the keys, in a shape that goes with ``visible``."""
        return x[:, keys][:, :, None, :] if near else x[rows, keys][:, None, None, :]

    if mask.causal:
        order = distance >= 0
        visible = visible & (order if mask.prefix is None else order | of_keys(mask.prefix))
    if mask.query_segments is not None:
        there = of_keys(mask.query_segments)
        visible = visible & (mask.query_segments[:, queries][..., None] == there) & (there > 0)
    return visible


def global_places(global_keys: Tensor) -> tuple[Tensor, Tensor]:
    """Indices ``[B, G]`` of the True entries of ``global_keys [B, T]`` and which are real: rows differ in G."""
    counts = global_keys.sum(1)
    most = max(int(counts.max()), 1)
    places = global_keys.long().topk(most, dim=1, sorted=True).indices if most < global_keys.shape[1] else None
    if places is None:
        places = torch.argsort((~global_keys).long(), dim=1, stable=True)
    real = global_keys.gather(1, places)
    return places, real


def reference(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float = 0.0, scoring: Scoring = PLAIN
) -> Tensor:
    """Attention as written on paper, in any dtype: what :func:`attend` is tested against, with the same arguments."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    visible = mask.dense(query.shape[2], key.shape[2], query.device)
    if scoring.vector is None:
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scoring.scale is None else scoring.scale)
    else:
        scores = torch.einsum("hd,bhtsd->bhts", scoring.vector, torch.tanh(query[:, :, :, None] + key[:, :, None]))
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    if scoring.bias is not None:
        scores = scores + scoring.bias.whole().to(scores.dtype)
    empty = ~visible.any(-1, keepdim=True)
    weights = scores.masked_fill(~visible, -math.inf).masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)
    return F.dropout(weights, dropout) @ value
