"""From scores to the next token: greedy, temperature, top-k, top-p, min-p, typical."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_nlp.decoding.config import GenerationConfig


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


def next_token(logits: Tensor, config: GenerationConfig, generator: torch.Generator) -> Tensor:
    """One token a row from ``logits [B, V]``: ``[B]``. Filters apply in the order of their mention above."""
    if config.temperature == 0:
        return logits.max(-1).indices  # faster than argmax in bfloat16 on a CPU
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
