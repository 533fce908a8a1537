"""Keys and values of the tokens seen so far, in buffers of fixed size."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nlp.errors import ConfigError


class KVCache:
    """One buffer a layer for self-attention; cross-attention keys and values are kept once computed.

    Until a call brings segments (of padding, say), every token counts as one segment and nothing is recorded.

    Args:
        batch: rows B.
        layers: self-attention layers.
        kv_heads: key/value heads.
        max_length: tokens that fit.
        d_head: width of a head.
    """

    def __init__(
        self,
        batch: int,
        layers: int,
        kv_heads: int,
        max_length: int,
        d_head: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (layers, batch, kv_heads, max_length, d_head)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.segments: Tensor | None = None
        self.positions: Tensor | None = None
        self.cross: dict[int, tuple[Tensor, Tensor]] = {}
        self.length = 0
        self.max_length = max_length

    def extend(self, tokens: int, segments: Tensor | None = None) -> Tensor | None:
        """Announce ``tokens`` new ones with ``segments [B, T]`` (None: segment 1).

        Returns:
            Segments of all keys ``[B, S]``, or None while they are all one.

        Raises:
            ConfigError: the cache is full.
        """
        stop = self.length + tokens
        if stop > self.max_length:
            raise ConfigError(f"{stop} tokens do not fit a cache of {self.max_length}")
        if self.segments is None:
            if segments is None:
                return None
            batch = self.keys.shape[1]
            self.segments = torch.ones(batch, self.max_length, dtype=segments.dtype, device=self.keys.device)
            self.positions = torch.arange(self.max_length, device=self.keys.device).repeat(batch, 1)
        self.segments[:, self.length : stop] = 1 if segments is None else segments
        return self.segments[:, :stop]

    def place(self, positions: Tensor) -> Tensor | None:
        """Note the ``positions [B, T]`` of the tokens just announced.

        Returns:
            Those of all keys ``[B, S]``, or None while they are simply counted.
        """
        if self.positions is None:
            return None
        stop = self.length + positions.shape[1]
        self.positions[:, self.length : stop] = positions
        return self.positions[:, :stop]

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Store ``[B, Hkv, T, Dh]`` after the tokens seen so far; returns all keys and values."""
        stop = self.length + key.shape[2]
        self.keys[layer, :, :, self.length : stop] = key
        self.values[layer, :, :, self.length : stop] = value
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]

    def advance(self, tokens: int) -> None:
        """All layers have stored ``tokens`` new ones."""
        self.length += tokens

    def reorder(self, rows: Tensor) -> None:
        """Make row ``rows[b]`` row b, for ``rows [B']`` (beam search; dropping rows that have ended)."""
        if len(rows) == self.keys.shape[1]:  # of a beam search's rows, many stay where they are
            moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero().flatten()
            whence = rows[moved]
            for buffer in (self.keys, self.values):
                filled = buffer[:, :, :, : self.length]
                filled[:, moved] = filled.index_select(1, whence)
        else:
            self.keys, self.values = self.keys.index_select(1, rows), self.values.index_select(1, rows)
        self.segments = None if self.segments is None else self.segments[rows]
        self.positions = None if self.positions is None else self.positions[rows]
        self.cross = {layer: (key[rows], value[rows]) for layer, (key, value) in self.cross.items()}
