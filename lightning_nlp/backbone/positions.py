"""How a model tells positions apart: learned, sinusoidal, rotary, or not at all."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig


class Rotation:
    """Turns queries and keys by the angle of their position; made once a forward pass, used by every layer.

    Args:
        angles: ``[B or 1, T, Dh / 2]``.
    """

    def __init__(self, angles: Tensor) -> None:
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        self.exact = angles.cos(), angles.sin()
        self._in: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """``x [B, H, T, Dh]`` turned, in its own dtype: dimension i is paired with i + Dh/2."""
        if x.dtype not in self._in:  # under autocast, queries are narrower than the embedding was
            self._in[x.dtype] = self.exact[0].to(x.dtype), self.exact[1].to(x.dtype)
        cosine, sine = self._in[x.dtype]
        first, second = x.chunk(2, dim=-1)
        return x * cosine + torch.cat((-second, first), dim=-1) * sine


def angles_of(positions: Tensor, width: int, base: float, dtype: torch.dtype) -> Tensor:
    """``p / base^(2i / width)`` for ``positions [B, T]``: ``[B, T, width / 2]``, at least in float32."""
    wide = torch.promote_types(dtype, torch.float32)
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=wide) / width
    return positions[..., None].to(wide) * torch.exp(-math.log(base) * exponents)


class NoPositions(nn.Module):
    """Adds nothing and turns nothing; the base of the other kinds."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()

    def forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        """Token embeddings ``[B, T, D]`` with what tells their ``positions [B, T]`` apart."""
        return embedded

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
        """What turns queries and keys, if anything."""
        return None


class LearnedPositions(NoPositions):
    """One vector a position, added (Gehring et al. 2017; GPT, BERT)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.max_length, config.d_model)

    def forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        return embedded + self.embedding(positions)


class SinusoidalPositions(NoPositions):
    """sin and cos of geometrically spaced wavelengths, interleaved (Vaswani et al. 2017, section 3.5).

    ``PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D))``. Embeddings are multiplied by
    ``sqrt(D)`` (section 3.4): next to waves of height 1, small initial embeddings would not be heard.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.width = config.d_model

    def forward(self, embedded: Tensor, positions: Tensor) -> Tensor:
        angles = angles_of(positions, self.width, 10000.0, embedded.dtype)
        waves = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
        return embedded * math.sqrt(self.width) + waves.to(embedded.dtype)


class RotaryPositions(NoPositions):
    """Turns pairs of query and key dimensions by an angle that grows with the position (Su et al. 2021)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.width, self.base = config.d_head, config.rotary_base

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation | None:
        return Rotation(angles_of(positions, self.width, self.base, dtype))


POSITIONS: dict[str, type[NoPositions]] = {
    "none": NoPositions,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rotary": RotaryPositions,
}


def positions_of(segments: Tensor) -> Tensor:
    """The one rule for positions: count from 0 within each run of equal ``segments [B, T]``; padding has 0."""
    index = torch.arange(segments.shape[1], device=segments.device).expand_as(segments)
    begins = torch.ones_like(segments, dtype=torch.bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    first = torch.where(begins, index, 0).cummax(dim=1).values
    return torch.where(segments > 0, index - first, 0)
