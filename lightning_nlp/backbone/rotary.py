"""Rotary positions (Su et al. 2021) and the published ways to stretch them over longer texts."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_nlp.backbone.config import RotaryScaling


class Rotation:
    """Turns queries and keys by the angle of their position; made once a forward pass, used by every layer.

    Args:
        angles: ``[B or 1, T, R / 2]``; the first R dimensions of a head are turned, the others stay.
        height: of sine and cosine (YaRN scales scores with it).
    """

    def __init__(self, angles: Tensor, height: float = 1.0) -> None:
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        self.exact = angles.cos() * height, angles.sin() * height
        self.width = angles.shape[-1]
        self._in: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    def last(self, length: int) -> Rotation:
        """The same for the last ``length`` positions alone."""
        cut = object.__new__(Rotation)
        cut.exact, cut.width, cut._in = (self.exact[0][:, :, -length:], self.exact[1][:, :, -length:]), self.width, {}
        return cut

    def __call__(self, x: Tensor) -> Tensor:
        """``x [B, H, T, Dh]`` turned, in its own dtype: dimension i is paired with i + R/2."""
        if x.dtype not in self._in:  # under autocast, queries are narrower than the embedding was
            self._in[x.dtype] = self.exact[0].to(x.dtype), self.exact[1].to(x.dtype)
        cosine, sine = self._in[x.dtype]
        rest = None
        if self.width < x.shape[-1]:
            x, rest = x[..., : self.width], x[..., self.width :]
        first, second = x.chunk(2, dim=-1)
        turned = x * cosine + torch.cat((-second, first), dim=-1) * sine
        return turned if rest is None else torch.cat((turned, rest), dim=-1)


def frequencies(
    width: int, base: float, scaling: RotaryScaling | None, device: torch.device | None, dtype: torch.dtype
) -> tuple[Tensor, float]:
    """Angle per position of each pair of dimensions, ``[width / 2]``, and the height of sine and cosine.

    Without scaling ``base^(-2i / width)``. linear: all divided by the factor (Chen et al. 2023). ntk: the base is
    multiplied by ``factor^(width / (width - 2))``, so that only the slowest pair is stretched in full. yarn: pairs that
    turn often stay, slow ones are divided, a ramp between (Peng et al. 2023, section 3.2). llama3: the same idea with
    wavelengths, as Llama 3.1 was trained.
    """
    exponents = torch.arange(0, width, 2, device=device, dtype=dtype) / width
    if scaling is None:
        return torch.exp(-math.log(base) * exponents), 1.0
    if scaling.kind == "ntk":
        stretched = base * scaling.factor ** (width / max(width - 2, 1))
        return torch.exp(-math.log(stretched) * exponents), 1.0
    fast = torch.exp(-math.log(base) * exponents)
    slow = fast / scaling.factor
    if scaling.kind == "linear":
        return slow, 1.0
    if scaling.kind == "llama3":
        turns = scaling.original_length * fast / (2 * math.pi)
        keep = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
        return torch.lerp(slow, fast, keep.clamp(0, 1)), 1.0

    def pair_with(turns: float) -> float:
        """The (fractional) pair that makes so many turns within the original length."""
        return width * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(base))

    low = max(math.floor(pair_with(scaling.beta_fast)), 0)
    high = min(math.ceil(pair_with(scaling.beta_slow)), width - 1)
    ramp = (torch.arange(width // 2, device=device, dtype=dtype) - low) / max(high - low, 0.001)
    height = scaling.attention_factor
    if height is None:
        height = 0.1 * math.log(scaling.factor) + 1.0 if scaling.factor > 1 else 1.0
    return torch.lerp(fast, slow, ramp.clamp(0, 1)), height
