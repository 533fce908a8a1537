"""Keys and values of the tokens seen so far, in buffers of fixed size."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nlp.errors import ConfigError


class KVCache:
    """One buffer a layer for self-attention; cross-attention keys and values are kept once computed.

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
        self.segments = torch.zeros(batch, max_length, dtype=torch.long, device=device)
        self.cross: dict[int, tuple[Tensor, Tensor]] = {}
        self.length = 0
        self.max_length = max_length

    def extend(self, segments: Tensor) -> Tensor:
        """Make room for ``segments [B, T]`` new tokens; returns the segments of all keys ``[B, S]``.

        Raises:
            ConfigError: the cache is full.
        """
        stop = self.length + segments.shape[1]
        if stop > self.max_length:
            raise ConfigError(f"{stop} tokens do not fit a cache of {self.max_length}")
        self.segments[:, self.length : stop] = segments
        return self.segments[:, :stop]

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
        """Keep row ``rows[b]`` as row b."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.segments = self.segments[rows]
        self.cross = {layer: (key[rows], value[rows]) for layer, (key, value) in self.cross.items()}
