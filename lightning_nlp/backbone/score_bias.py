"""What is added to attention scores because of distance: made once a forward pass, used by every layer."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


class ScoreBias:
    """A bias for every pair of query and key.

    Args:
        of: distances ``key - query``, int64 ``[.., T, S]``, to biases ``[.., H, T, S]``.
        distances: ``[1 or B, T, S]``; those of indices where documents are runs, else those of positions.
    """

    def __init__(self, of: Callable[[Tensor], Tensor], distances: Tensor) -> None:
        self.of, self.distances = of, distances
        self._whole: Tensor | None = None
        self._masked: tuple[Tensor | None, torch.dtype, Tensor] | None = None
        self._pieces: dict[int, ScoreBias] = {}

    def whole(self) -> Tensor:
        """``[1 or B, H, T, S]``."""
        if self._whole is None:
            self._whole = self.of(self.distances)
        return self._whole

    def fresh(self) -> ScoreBias:
        """The same bias, with nothing made of it yet but the whole."""
        other = ScoreBias(self.of, self.distances)
        other._whole = self._whole
        return other

    def piece(self, start: int, stop: int) -> ScoreBias:
        """The bias within a document that stands at ``start:stop``; it depends on the length alone."""
        length = stop - start
        if length not in self._pieces:
            self._pieces[length] = Square(self, length)
        return self._pieces[length]

    def at(self, distances: Tensor) -> ScoreBias:
        """The same kind of bias at other distances."""
        return ScoreBias(self.of, distances)

    def masked(self, visible: Tensor | None, dtype: torch.dtype) -> Tensor:
        """:meth:`whole` with -inf where ``visible`` is False; the last one made is kept for the next layer."""
        kept = self._masked
        if kept is None or kept[0] is not visible or kept[1] != dtype:
            bias = self.whole().to(dtype)
            self._masked = visible, dtype, bias if visible is None else bias.masked_fill(~visible, -math.inf)
        assert self._masked is not None
        return self._masked[2]


class Square(ScoreBias):
    """The first ``length`` queries and keys of another bias."""

    def __init__(self, larger: ScoreBias, length: int) -> None:
        super().__init__(larger.of, larger.distances[:, :length, :length])
        self.larger, self.length = larger, length

    def whole(self) -> Tensor:
        return self.larger.whole()[:, :, : self.length, : self.length]
