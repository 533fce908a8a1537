"""How a model tells positions apart: learned, sinusoidal, rotary, or not at all."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig


class NoPositions(nn.Module):
    """Adds nothing and turns nothing."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What is added to the token embeddings for ``positions [B, T]``: ``[B, T, D]`` or None."""
        return None

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        """Cosines and sines ``[B, 1, T, Dh]`` that turn queries and keys, or None."""
        return None


class LearnedPositions(NoPositions):
    """One vector a position (Gehring et al. 2017; GPT, BERT)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(config.max_length, config.d_model)

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Tensor | None:
        return self.embedding(positions)


class SinusoidalPositions(NoPositions):
    """sin and cos of geometrically spaced wavelengths, interleaved (Vaswani et al. 2017, section 3.5).

    ``PE(p, 2i) = sin(p / 10000^(2i/D)), PE(p, 2i+1) = cos(p / 10000^(2i/D))``.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.width = config.d_model

    def forward(self, positions: Tensor, dtype: torch.dtype) -> Tensor | None:
        exponents = torch.arange(0, self.width, 2, device=positions.device, dtype=torch.float32) / self.width
        angles = positions[..., None].float() * torch.exp(-math.log(10000.0) * exponents)
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2).to(dtype)


class RotaryPositions(NoPositions):
    """Turns pairs of query and key dimensions by an angle that grows with the position (Su et al. 2021)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.width, self.base = config.d_head, config.rotary_base

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor] | None:
        exponents = torch.arange(0, self.width, 2, device=positions.device, dtype=torch.float32) / self.width
        angles = positions[:, None, :, None].float() * torch.exp(-math.log(self.base) * exponents)
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Turn ``x [B, H, T, Dh]``: dimension i is paired with i + Dh/2."""
    cosine, sine = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


POSITIONS: dict[str, type[NoPositions]] = {
    "none": NoPositions,
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "rotary": RotaryPositions,
}


def positions_of(segments: Tensor | None, batch: int, length: int, offset: int, device: torch.device) -> Tensor:
    """The one rule for positions ``[B, T]``: count from 0 within each run of equal segments; padding has 0.

    Args:
        segments: ``[B, T]`` or None (one segment).
        offset: added for a sequence that goes on from a cache, when there are no segments.
    """
    index = torch.arange(length, device=device).expand(batch, length)
    if segments is None:
        return index + offset
    starts = torch.ones_like(segments, dtype=torch.bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    first = torch.where(starts, index, 0).cummax(dim=1).values
    return torch.where(segments > 0, index - first, 0)
