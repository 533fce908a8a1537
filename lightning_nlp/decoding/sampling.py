"""From scores to the next token: greedy, temperature, top-k, top-p, min-p, typical."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_nlp.decoding.config import GenerationConfig

PIECE = 256
"""Neighbours that are looked at together when the highest scores are searched for on a CPU."""


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Set all but the k highest of ``scores [B, V]`` to -inf; of equals at the border, as many as fit stay."""
    if k >= scores.shape[-1]:
        return scores
    values, indices = scores.topk(k, dim=-1)
    return torch.full_like(scores, -math.inf).scatter_(-1, indices, values)


def keep_mass(scores: Tensor, order: Tensor, p: float) -> Tensor:
    """Of ``scores [B, V]`` keep the first in ``order [B, V]`` whose probability reaches ``p``; at least one."""
    ordered = scores.gather(-1, order)
    probabilities = ordered.softmax(-1)
    late = probabilities.cumsum(-1) - probabilities >= p
    late[..., 0] = False
    return torch.empty_like(scores).scatter_(-1, order, ordered.masked_fill(late, -math.inf))


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Of ``scores [B, V]`` keep the smallest set of likeliest tokens whose probability reaches ``p``; at least one.

    The others become -inf (nucleus sampling, Holtzman et al. 2020).
    """
    return scores if p >= 1 else keep_mass(scores, scores.argsort(dim=-1, descending=True), p)


def keep_min_p(scores: Tensor, p: float) -> Tensor:
    """Of ``scores [B, V]`` keep tokens at least ``p`` times as likely as the likeliest (Nguyen et al. 2025)."""
    return scores.masked_fill(scores < scores.amax(-1, keepdim=True) + math.log(p), -math.inf)


def keep_typical(scores: Tensor, p: float) -> Tensor:
    """Of ``scores [B, V]`` keep tokens whose information is nearest to its mean, until they hold ``p``; at least one.

    Information is ``-log q``, its mean the entropy (locally typical sampling, Meister et al. 2023).
    """
    if p >= 1:
        return scores
    logs = scores.log_softmax(-1)
    entropy = -(logs.exp() * logs).nansum(-1, keepdim=True)
    return keep_mass(scores, (logs + entropy).abs().argsort(dim=-1), p)


def likeliest(scores: Tensor) -> Tensor:
    """Where the highest of every row of ``scores [B, V]`` is, the first of equals: ``[B]``.

    On a CPU the maxima of pieces of a row are found many times faster than the place of its maximum.
    """
    vocabulary = scores.shape[1]
    whole = vocabulary // PIECE * PIECE
    if scores.device.type != "cpu" or whole < 4 * PIECE:
        return scores.max(-1).indices
    maxima = [scores[:, :whole].unflatten(1, (-1, PIECE)).amax(-1)]
    if whole < vocabulary:
        maxima.append(scores[:, whole:].amax(-1, keepdim=True))
    start = torch.cat(maxima, dim=1).max(-1).indices[:, None] * PIECE
    places = (start + torch.arange(PIECE)).clamp(max=vocabulary - 1)
    return start[:, 0] + scores.gather(1, places).max(-1).indices


def highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest of every row of ``scores [B, V]``, in order, and where they are: ``[B, k]`` each.

    On a CPU they are looked for in the k pieces of the row with the highest maxima: they cannot be elsewhere.
    """
    vocabulary = scores.shape[1]
    whole = vocabulary // PIECE * PIECE
    if scores.device.type != "cpu" or whole < 4 * k * PIECE:
        return scores.topk(k, dim=-1)
    chosen = scores[:, :whole].unflatten(1, (-1, PIECE)).amax(-1).topk(k, dim=-1).indices
    inside = chosen[:, :, None] * PIECE + torch.arange(PIECE)
    rest = torch.arange(whole, vocabulary).expand(len(scores), -1)
    places = torch.cat((inside.flatten(1), rest), dim=1)
    values, order = scores.gather(1, places).topk(k, dim=-1)
    return values, places.gather(1, order)


def next_token(logits: Tensor, config: GenerationConfig, generator: torch.Generator) -> Tensor:
    """One token a row from ``logits [B, V]``: ``[B]``. Filters apply in the order of their mention above."""
    if config.temperature == 0:
        return likeliest(logits)
    scores = logits.float()
    scores = (scores - scores.amax(-1, keepdim=True)) / max(config.temperature, 1e-30)  # the best stays 0: no overflow
    if config.top_k is not None:
        scores = keep_top_k(scores, config.top_k)
    if config.top_p is not None:
        scores = keep_top_p(scores, config.top_p)
    if config.min_p is not None:
        scores = keep_min_p(scores, config.min_p)
    if config.typical_p is not None:
        scores = keep_typical(scores, config.typical_p)
    return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
