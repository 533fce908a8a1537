"""The Transformer: one class, arranged as encoder, decoder or encoder-decoder. Tokens in, hidden states out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.block import Block
from lightning_nlp.backbone.cache import KVCache
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.layers import norm
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.positions import POSITIONS, positions_of
from lightning_nlp.errors import ConfigError


class Stack(nn.Module):
    """Blocks one after the other, and the final norm that pre-norm needs."""

    def __init__(self, config: TransformerConfig, layers: int, cross_attention: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config, layer, cross_attention) for layer in range(layers))
        self.final_norm = norm(config) if config.norm_placement == "pre" else None

    def forward(
        self, x: Tensor, mask: AttentionMask, rotation: tuple[Tensor, Tensor] | None, **context: object
    ) -> Tensor:
        """``[B, T, D] -> [B, T, D]``."""
        for layer in self.layers:
            x = layer(x, mask, rotation, **context)
        return x if self.final_norm is None else self.final_norm(x)


class Transformer(nn.Module):
    """Maps tokens to hidden states; heads and losses are the tasks' business.

    Args:
        config: the architecture; ``vocab_size`` must be set.

    Raises:
        ConfigError: no vocabulary size.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ConfigError("backbone.vocab_size must be set before the backbone is built")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = POSITIONS[config.positions](config)
        self.dropout = nn.Dropout(config.dropout)
        both = config.arrangement == "encoder_decoder"
        self.encoder = (
            Stack(config, config.n_encoder_layers if both else config.n_layers, False) if self._encodes else None
        )
        self.decoder = Stack(config, config.n_layers, both) if config.arrangement != "encoder" else None

    @property
    def _encodes(self) -> bool:
        return self.config.arrangement != "decoder"

    @property
    def embedding_weight(self) -> Tensor:
        """``[V, D]``, for output layers tied to the embedding."""
        return self.token_embedding.weight

    def new_cache(self, batch: int, max_length: int) -> KVCache:
        """An empty cache for ``batch`` rows of up to ``max_length`` tokens."""
        weight, config = self.token_embedding.weight, self.config
        return KVCache(
            batch, config.n_layers, config.n_kv_heads, max_length, config.d_head, weight.dtype, weight.device
        )

    def _embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        x = self.token_embedding(tokens)
        added = self.positions(positions, x.dtype)
        if added is not None:
            x = x + added
        return self.dropout(x), self.positions.rotation(positions, x.dtype)

    def _check_length(self, length: int) -> None:
        if length > self.config.max_length:
            raise ConfigError(f"{length} tokens are more than backbone.max_length {self.config.max_length}")

    def encode(self, tokens: Tensor, segments: Tensor | None = None, positions: Tensor | None = None) -> Tensor:
        """Encoder states ``[B, S, D]`` of ``tokens [B, S]``.

        Raises:
            ConfigError: the arrangement has no encoder, or the sequence is too long.
        """
        if self.encoder is None:
            raise ConfigError("backbone.arrangement decoder has no encoder")
        batch, length = tokens.shape
        self._check_length(length)
        if positions is None:
            positions = positions_of(segments, batch, length, 0, tokens.device)
        x, rotation = self._embed(tokens, positions)
        return self.encoder(x, AttentionMask(False, segments), rotation)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        source_tokens: Tensor | None = None,
        source_segments: Tensor | None = None,
        source_positions: Tensor | None = None,
        memory: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states of ``tokens [B, T]``.

        Args:
            tokens: token ids.
            positions: ``[B, T]``; by default counted within each segment.
            segments: ``[B, T]``; 0 is padding, equal numbers see each other. None: all one segment.
            source_tokens, source_segments, source_positions: ``[B, S]`` for the encoder of an encoder_decoder.
            memory: ``[B, S, D]`` of an earlier :meth:`encode`, instead of ``source_tokens``.
            cache: keys and values so far; extended by this call.

        Returns:
            ``[B, T, D]``, normalised.

        Raises:
            ConfigError: more tokens than ``max_length``, or source and arrangement do not fit.
        """
        if self.decoder is None:
            return self.encode(tokens, segments, positions)
        batch, length = tokens.shape
        offset = cache.length if cache is not None else 0
        self._check_length(offset + length)
        if positions is None:
            positions = positions_of(segments, batch, length, offset, tokens.device)
        x, rotation = self._embed(tokens, positions)
        key_segments = None
        if cache is not None:
            if segments is None:
                segments = torch.ones_like(tokens)
            key_segments = cache.extend(segments)
        mask = AttentionMask(True, segments, key_segments, offset)
        context: dict[str, object] = {"cache": cache}
        if self.encoder is not None:
            if memory is None:
                if source_tokens is None:
                    raise ConfigError("an encoder_decoder needs source_tokens or memory")
                memory = self.encode(source_tokens, source_segments, source_positions)
            context["memory"] = memory
            context["memory_mask"] = cross_mask(segments, source_segments, tokens, memory)
        elif memory is not None or source_tokens is not None:
            raise ConfigError("a decoder takes no source: backbone.arrangement encoder_decoder does")
        hidden = self.decoder(x, mask, rotation, **context)
        if cache is not None:
            cache.advance(length)
        return hidden


def cross_mask(
    segments: Tensor | None, source_segments: Tensor | None, tokens: Tensor, memory: Tensor
) -> AttentionMask:
    """Queries see the source tokens of their own segment; without segments on one side, that side is one segment."""
    if segments is None and source_segments is None:
        mask = AttentionMask(False)
        return mask
    if segments is None:
        segments = torch.ones_like(tokens)
    if source_segments is None:
        source_segments = torch.ones(memory.shape[:2], dtype=torch.long, device=memory.device)
    return AttentionMask(False, segments, source_segments)
