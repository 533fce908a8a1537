"""Attention kernels of CUDA devices for masks that PyTorch's plain kernel cannot say without a mask tensor.

Rows of documents, and rows with padding, go to the variable-length flash kernel; windows, prefixes, biases and soft
caps of long rows to FlexAttention, which skips blocks that are wholly hidden (Dong et al. 2024).

What a mask looks like to a kernel is made once for all layers. Only making it waits for the device, once a forward
pass, where a batch has segments; without segments nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from lightning_nlp.backbone import compat

if TYPE_CHECKING:
    from lightning_nlp.backbone.attention import Scoring
    from lightning_nlp.backbone.masks import AttentionMask

HALVES = (torch.float16, torch.bfloat16)
FLEX_FROM = 512
"""Keys from which FlexAttention is worth its compilation, which every new shape costs again: a mask tensor of fewer is
small."""
SHAPES = 64
"""Shapes FlexAttention is compiled for before PyTorch gives up and computes without a kernel; its own default is 8."""

Made = TypeVar("Made")
_MADE: WeakKeyDictionary[AttentionMask, dict[Any, Any]] = WeakKeyDictionary()


def once(mask: AttentionMask, key: Any, make: Callable[[], Made]) -> Made:
    """What ``make`` gives, for all layers that ask for ``key`` of the same mask; forgotten with the mask."""
    made = _MADE.setdefault(mask, {})
    if key not in made:
        made[key] = make()
    found: Made = made[key]
    return found


def outside_of_graphs(function: Callable[..., Made]) -> Callable[..., Made]:
    """``function`` as a call that ``torch.compile`` does not look into: it decides by what tensors hold.

    Traced, it would end the graph at every such question, and be compiled anew for other lengths of documents.
    """
    return torch.compiler.disable(function) if torch.version.cuda else function


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, dropout: float, scoring: Scoring
) -> Tensor | None:
    """The kernel that fits, or None where PyTorch's plain one, with or without a mask tensor, is right."""
    queries, keys = query.shape[2], key.shape[2]
    if queries == 1 or dropout or scoring.vector is not None or not mask.own:
        return None
    simple = scoring.fusable and scoring.bias is None
    if simple and mask.plain and mask.reaches(queries, keys):
        return None
    documents = mask.query_segments is not None and mask.prefix is None and mask.global_keys is None
    if documents and simple and query.dtype in HALVES and once(mask, "in pieces", lambda: in_pieces(mask)):
        return documents_in_one(query, key, value, mask, scoring.scale)
    return flexible(query, key, value, mask, scoring) if keys >= FLEX_FROM else None


def in_pieces(mask: AttentionMask) -> bool:
    """Every document is one run of its row, so that the kernel need not be told who sees whom."""
    documents = [(row, number) for row, _, _, number in mask.runs if number > 0]
    return len(set(documents)) == len(documents)


def boundaries(mask: AttentionMask, device: torch.device) -> tuple[Tensor, int, Tensor | None]:
    """Where runs of a mask with segments end in all rows laid one after the other, int32 ``[runs + 1]`` from 0 on; the
    length of the longest; and where padding is, ``[B * T]``, or None."""
    assert mask.query_segments is not None
    lengths = [stop - start for _, start, stop, _ in mask.runs]
    ends = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32).to(device)
    padded = any(number <= 0 for *_, number in mask.runs)
    return ends, max(lengths), (mask.query_segments <= 0).flatten() if padded else None


def documents_in_one(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, scale: float | None, kernel: Any = None
) -> Tensor:
    """All documents of all rows in one call of the variable-length kernel.

    A run of padding is one more document, and what comes out of it is set to zero: to leave it out, tensors would have
    to be gathered, and the host to wait for their size.

    Args:
        kernel: stands in for ``torch.nn.attention.varlen.varlen_attn``, which has no CPU form.
    """
    kernel = compat.varlen_attention() if kernel is None else kernel
    batch, heads, length, width = query.shape
    ends, longest, padding = once(mask, "boundaries", lambda: boundaries(mask, query.device))
    flat = [x.transpose(1, 2).flatten(0, 1) for x in (query, key, value)]
    before = -1 if mask.window is None else mask.window - 1
    window = (before, 0 if mask.causal else before)
    output = kernel(
        *flat, ends, ends, longest, longest, scale=scale, window_size=window, enable_gqa=key.shape[1] != heads
    )
    if padding is not None:
        output = output.masked_fill(padding[:, None, None], 0.0)
    return output.view(batch, length, heads, width).transpose(1, 2)


@cache
def compiled() -> Any:
    """FlexAttention is only fast when compiled."""
    from torch._dynamo import config
    from torch.nn.attention.flex_attention import flex_attention

    return config.patch(recompile_limit=SHAPES)(torch.compile(flex_attention, dynamic=False))


def blocks(mask: AttentionMask, queries: int, keys: int, device: torch.device) -> tuple[Any, Tensor]:
    """FlexAttention's form of a mask, and the queries that see nothing, ``[B or 1, 1, T, 1]``."""
    from torch.nn.attention.flex_attention import create_block_mask

    visible = mask.dense(queries, keys, device)
    rows = visible.shape[0]

    def mask_mod(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return visible[b if rows > 1 else 0, 0, q, k]

    made = create_block_mask(mask_mod, rows if rows > 1 else None, None, queries, keys, device=device)
    return made, ~visible.any(-1, keepdim=True)


def flexible(
    query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, scoring: Scoring, kernel: Any = None
) -> Tensor:
    """Any mask, bias and cap through FlexAttention.

    Args:
        kernel: stands in for the compiled ``flex_attention``.
    """
    queries, keys = query.shape[2], key.shape[2]
    made, empty = once(mask, ("blocks", queries, keys), lambda: blocks(mask, queries, keys, query.device))
    bias = None if scoring.bias is None else scoring.bias.whole().to(query.dtype)
    cap = scoring.softcap

    def score_mod(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        if cap is not None:
            score = cap * torch.tanh(score / cap)
        return score if bias is None else score + bias[b if bias.shape[0] > 1 else 0, h, q, k]

    run = compiled() if kernel is None else kernel
    output = run(
        query, key, value, score_mod=None if bias is None and cap is None else score_mod, block_mask=made,
        scale=scoring.scale, enable_gqa=key.shape[1] != query.shape[1],
    )  # fmt: skip
    return output.masked_fill(empty, 0.0)
