"""From scores to the next token: greedy, temperature, top-k, top-p."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_nlp.errors import ConfigError


@dataclass(frozen=True)
class GenerationConfig:
    """How text is decoded."""

    max_new_tokens: int = 64
    """Tokens added at most."""
    temperature: float = 0.0
    """0 takes the likeliest token; 1 samples from the model as it is."""
    top_k: int | None = None
    """Sample among the k likeliest."""
    top_p: float | None = None
    """Sample among the likeliest that together hold this probability (Holtzman et al. 2020)."""
    seed: int | None = None
    """Of the random numbers; None draws others every time."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"generation.max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if self.temperature < 0 or not math.isfinite(self.temperature):
            raise ConfigError(f"generation.temperature must be 0 or more, not {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"generation.top_k must be at least 1, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ConfigError(f"generation.top_p must be in (0, 1], not {self.top_p}")


def keep_top_k(scores: Tensor, k: int) -> Tensor:
    """Set all but the k highest of ``scores [B, V]`` to -inf; of equals at the border, as many as fit stay."""
    if k >= scores.shape[-1]:
        return scores
    values, indices = scores.topk(k, dim=-1)
    return torch.full_like(scores, -math.inf).scatter_(-1, indices, values)


def keep_top_p(scores: Tensor, p: float) -> Tensor:
    """Of ``scores [B, V]`` keep the smallest set of likeliest tokens whose probability reaches ``p``; at least one.

    The others become -inf (nucleus sampling, Holtzman et al. 2020).
    """
    if p >= 1:
        return scores
    ordered, order = scores.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    ordered = ordered.masked_fill(before >= p, -math.inf)
    ordered[..., 0] = scores.amax(-1)
    return torch.empty_like(scores).scatter_(-1, order, ordered)


def next_token(logits: Tensor, config: GenerationConfig, generator: torch.Generator) -> Tensor:
    """One token a row from ``logits [B, V]``: ``[B]``."""
    if config.temperature == 0:
        return logits.max(-1).indices  # faster than argmax in bfloat16 on a CPU
    scores = logits.float()
    scores = (scores - scores.amax(-1, keepdim=True)) / max(config.temperature, 1e-30)  # the best stays 0: no overflow
    if config.top_k is not None:
        scores = keep_top_k(scores, config.top_k)
    if config.top_p is not None:
        scores = keep_top_p(scores, config.top_p)
    return torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
