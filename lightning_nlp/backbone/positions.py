"""How a model tells positions apart: learned, sinusoidal, rotary, by biases of scores, or not at all."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.rotary import Rotation, frequencies
from lightning_nlp.backbone.score_bias import ScoreBias


class NoPositions(nn.Module):
    """Adds nothing, turns nothing and biases nothing; the base of the other kinds.

    Args:
        causal: the stack is a decoder.
    """

    def __init__(self, config: TransformerConfig, causal: bool = True) -> None:
        super().__init__()
        self.shift = config.position_shift

    def shifted(self, positions: Tensor) -> Tensor:
        """``[B, T]`` positions, in training each row by a random number up to ``position_shift`` (Kiyono et al. 2021).

        What a model can then learn is how far tokens are from each other, not where a text begins.
        """
        if not (self.shift and self.training):
            return positions
        return positions + torch.randint(self.shift + 1, (len(positions), 1), device=positions.device)

    def forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """Token embeddings ``[B, T, D]`` with what tells their ``positions [B, T]`` apart."""
        return embedded

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
        """What turns queries and keys, if anything."""
        return None

    def bias(self, queries: Tensor, keys: Tensor) -> ScoreBias | None:
        """What is added to scores, if anything, for queries at ``[1 or B, T]`` and keys at ``[1 or B, S]``."""
        return None


class LearnedPositions(NoPositions):
    """One vector a position, added (Gehring et al. 2017; GPT, BERT)."""

    def __init__(self, config: TransformerConfig, causal: bool = True) -> None:
        super().__init__(config, causal)
        self.embedding = nn.Embedding(config.max_length, config.d_model)

    def forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        if self.shift:
            positions = self.shifted(positions.expand(len(embedded), -1))
        return embedded + self.embedding(positions)


class SinusoidalPositions(NoPositions):
    """sin and cos of geometrically spaced wavelengths, added (Vaswani et al. 2017, section 3.5).

    Three published layouts, with ``w_i = 10000^(-2i/D)``, i from 0 to D/2 - 1:

    - interleaved: ``PE(p, 2i) = sin(p w_i)``, ``PE(p, 2i+1) = cos(p w_i)`` (the paper);
    - halves: first all sines, then all cosines (Marian, Sockeye);
    - fairseq: halves with ``w_i = 10000^(-i / (D/2 - 1))`` (tensor2tensor), positions counted from ``pad_id + 1``, and
      a zero in the last dimension where D is odd (which is refused here).

    Embeddings are usually multiplied by ``sqrt(D)`` (section 3.4; ``scale_embeddings``): next to waves of height 1,
    small initial embeddings would not be heard.
    """

    def __init__(self, config: TransformerConfig, causal: bool = True) -> None:
        super().__init__(config, causal)
        self.layout, self.waves = config.sinusoid, config.d_model // 2
        self.first = (config.pad_id or 0) + 1 if self.layout == "fairseq" else 0

    def forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        wide = torch.promote_types(embedded.dtype, torch.float32)
        steps = self.waves - 1 if self.layout == "fairseq" else self.waves
        exponents = torch.arange(self.waves, device=positions.device, dtype=wide) / steps
        positions = self.shifted(positions.expand(len(embedded), -1)) if self.shift else positions
        angles = (positions + self.first)[..., None].to(wide) * torch.exp(-math.log(10000.0) * exponents)
        if self.layout == "interleaved":
            waves = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
        else:
            waves = torch.cat((angles.sin(), angles.cos()), dim=-1)
        return embedded + waves.to(embedded.dtype)


class RotaryPositions(NoPositions):
    """Turns pairs of query and key dimensions by an angle that grows with the position (Su et al. 2021)."""

    def __init__(self, config: TransformerConfig, causal: bool = True) -> None:
        super().__init__(config, causal)
        self.width, self.base, self.scaling = config.rotary_width, config.rotary_base, config.rotary_scaling

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
        wide = torch.promote_types(dtype, torch.float32)
        each, height = frequencies(self.width, self.base, self.scaling, positions.device, wide)
        return Rotation(positions[..., None].to(wide) * each, height)


class ALiBiPositions(NoPositions):
    """Scores fall linearly with distance, with another slope for every head (Press et al. 2022); both ways alike.

    For H heads, a power of two, slopes are ``2^(-8 h / H)``, h from 1; otherwise those of the next lower power, and
    then every second one of the next higher (the paper's code).
    """

    def __init__(self, config: TransformerConfig, causal: bool = True) -> None:
        super().__init__(config, causal)
        self.slopes = alibi_slopes(config.n_heads)

    def bias(self, queries: Tensor, keys: Tensor) -> ScoreBias | None:
        slopes = torch.tensor(self.slopes, device=keys.device)[:, None, None]
        return ScoreBias(lambda distances: -slopes * distances.abs()[..., None, :, :], between(queries, keys))


def alibi_slopes(heads: int) -> list[float]:
    """One slope a head."""
    lower = 2 ** math.floor(math.log2(heads))
    slopes = [2.0 ** (-8 * head / lower) for head in range(1, lower + 1)]
    return slopes + [2.0 ** (-4 * head / lower) for head in range(1, 2 * (heads - lower), 2)]


class RelativePositions(NoPositions):
    """One learned bias a head for every bucket of distances (Raffel et al. 2020, T5), shared by all layers of a stack.

    Half of the buckets are single distances, the other half grow logarithmically up to ``relative_distance``; an
    encoder splits them between keys before and after the query.
    """

    def __init__(self, config: TransformerConfig, causal: bool = True) -> None:
        super().__init__(config, causal)
        self.causal, self.buckets, self.farthest = causal, config.relative_buckets, config.relative_distance
        self.embedding = nn.Embedding(config.relative_buckets, config.n_heads)

    def bucket(self, distances: Tensor) -> Tensor:
        """Bucket numbers of ``key - query``, of the same shape."""
        buckets = self.buckets if self.causal else self.buckets // 2
        offset = torch.zeros_like(distances) if self.causal else (distances > 0) * buckets
        away = (-distances).clamp(min=0) if self.causal else distances.abs()
        single = buckets // 2
        growth = (away.clamp(min=1) / single).log() / math.log(self.farthest / single) * (buckets - single)
        far = (single + growth.long()).clamp(max=buckets - 1)
        return offset + torch.where(away < single, away, far)

    def bias(self, queries: Tensor, keys: Tensor) -> ScoreBias | None:
        def of(distances: Tensor) -> Tensor:
            return self.embedding(self.bucket(distances)).movedim(-1, -3)

        return ScoreBias(of, between(queries, keys))


def between(queries: Tensor, keys: Tensor) -> Tensor:
    """``key - query`` of positions ``[B, T]`` and ``[B, S]``: ``[B, T, S]``."""
    return keys[:, None, :] - queries[:, :, None]


POSITIONS: dict[str, type[NoPositions]] = {
    "none": NoPositions,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rotary": RotaryPositions,
    "alibi": ALiBiPositions,
    "relative": RelativePositions,
}


def positions_of(segments: Tensor) -> Tensor:
    """The one rule for positions: count from 0 within each run of equal ``segments [B, T]``; padding has 0."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    first = torch.where(begins, index, 0).cummax(dim=1).values
    return torch.where(segments > 0, index - first, 0)
