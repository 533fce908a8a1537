"""The Transformer: one class, arranged as encoder, decoder or encoder-decoder. Tokens in, hidden states out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.block import Block
from lightning_nlp.backbone.cache import KVCache
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.layers import norm
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.positions import POSITIONS, Rotation, positions_of
from lightning_nlp.errors import ConfigError


class Stack(nn.Module):
    """Blocks one after the other, and the final norm that pre-norm needs."""

    def __init__(self, config: TransformerConfig, layers: int, cross_attention: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config, layer, cross_attention) for layer in range(layers))
        self.final_norm = norm(config) if config.norm_placement == "pre" else None

    def forward(self, x: Tensor, mask: AttentionMask, rotation: Rotation | None, **context: object) -> Tensor:
        """``[B, T, D] -> [B, T, D]``; ``context`` is what :class:`Block` takes besides."""
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
        self.encoder: Stack | None = None
        self.decoder: Stack | None = None
        if config.arrangement != "decoder":
            both = config.arrangement == "encoder_decoder"
            self.encoder = Stack(config, config.n_encoder_layers if both else config.n_layers, False)
        if config.arrangement != "encoder":
            self.decoder = Stack(config, config.n_layers, cross_attention=self.encoder is not None)

    @property
    def embedding_weight(self) -> Tensor:
        """``[V, D]``, for output layers tied to the embedding."""
        return self.token_embedding.weight

    def new_cache(self, batch: int, max_length: int) -> KVCache:
        """An empty cache for ``batch`` rows of up to ``max_length`` tokens, in the dtype attention computes in."""
        weight, config = self.token_embedding.weight, self.config
        dtype, device = weight.dtype, weight.device
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        return KVCache(batch, config.n_layers, config.n_kv_heads, max_length, config.d_head, dtype, device)

    def _embed(self, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Rotation | None]:
        x = self.positions(self.token_embedding(tokens), positions)
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
            raise ConfigError("backbone.arrangement decoder has no encoder; encoder and encoder_decoder have one")
        self._check_length(tokens.shape[1])
        if positions is None:
            positions = default_positions(tokens, segments)
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
            positions: ``[B, T]``, below ``max_length``; by default counted within each segment.
            segments: ``[B, T]``; 0 is padding, equal numbers see each other. None: all one segment.
            source_tokens, source_segments, source_positions: ``[B, S]`` for the encoder of an encoder_decoder. Its
                decoder's queries see the source tokens of their own segment number.
            memory: ``[B, S, D]`` of an earlier :meth:`encode`, instead of ``source_tokens``.
            cache: keys and values so far; extended by this call.

        Returns:
            ``[B, T, D]``, normalised.

        Raises:
            ConfigError: more tokens than ``max_length``, or source or cache and arrangement do not fit.
        """
        self._check_source(source_tokens, memory, cache)
        if self.decoder is None:
            return self.encode(tokens, segments, positions)
        length, offset, key_segments = tokens.shape[1], 0, None
        self._check_length(length)
        if cache is not None and cache.length > 0:
            offset = cache.length
            if positions is None:
                self._check_length(offset + length)
        if cache is not None:
            all_segments = cache.extend(length, segments)
            if offset > 0 and all_segments is not None:
                key_segments, segments = all_segments, all_segments[:, offset:]
        if positions is None:
            positions = default_positions(tokens, key_segments if key_segments is not None else segments, offset)
        x, rotation = self._embed(tokens, positions)
        # A single query is the last position: nothing comes after it.
        mask = AttentionMask(length > 1, segments, key_segments, offset)
        context: dict[str, object] = {"cache": cache}
        if self.encoder is not None:
            if memory is None:
                assert source_tokens is not None
                memory = self.encode(source_tokens, source_segments, source_positions)
            context["memory"] = memory
            context["memory_mask"] = cross_mask(segments, source_segments, tokens, memory)
        hidden = self.decoder(x, mask, rotation, **context)
        if cache is not None:
            cache.advance(length)
        return hidden

    def _check_source(self, source_tokens: Tensor | None, memory: Tensor | None, cache: KVCache | None) -> None:
        arrangement, sourced = self.config.arrangement, source_tokens is not None or memory is not None
        if arrangement == "encoder_decoder" and not sourced:
            raise ConfigError("backbone.arrangement encoder_decoder needs source_tokens or memory")
        if arrangement != "encoder_decoder" and sourced:
            raise ConfigError(f"backbone.arrangement {arrangement} takes no source; encoder_decoder does")
        if arrangement == "encoder" and cache is not None:
            raise ConfigError("backbone.arrangement encoder has no use for a cache; decoder and encoder_decoder have")


def default_positions(tokens: Tensor, segments: Tensor | None, offset: int = 0) -> Tensor:
    """Positions ``[B, T]`` (``[1, T]`` where rows agree) of ``tokens [B, T]`` that follow ``offset`` others.

    Args:
        segments: ``[B, offset + T]``, of the earlier tokens too; None: one segment.
    """
    if segments is None:
        return torch.arange(offset, offset + tokens.shape[1], device=tokens.device)[None]
    return positions_of(segments)[:, offset:]


def cross_mask(
    segments: Tensor | None, source_segments: Tensor | None, tokens: Tensor, memory: Tensor
) -> AttentionMask:
    """Queries see the source tokens of their own segment; without segments on one side, that side is one segment."""
    if segments is None and source_segments is None:
        return AttentionMask(False)
    if segments is None:
        segments = torch.ones_like(tokens)
    if source_segments is None:
        source_segments = torch.ones(memory.shape[:2], dtype=segments.dtype, device=memory.device)
    return AttentionMask(False, segments, source_segments)
