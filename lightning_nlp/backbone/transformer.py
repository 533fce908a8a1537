"""The Transformer: one class, arranged as encoder, decoder or encoder-decoder. Tokens in, hidden states out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.block import Block, Places, block
from lightning_nlp.backbone.cache import KVCache
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.layers import norm
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.parallel.collectives import local
from lightning_nlp.backbone.positions import POSITIONS, positions_of
from lightning_nlp.backbone.recurrence import Carried, Recurrence
from lightning_nlp.errors import ConfigError


class Stack(nn.Module):
    """Positions, blocks one after the other, and the final norm that all but post-norm need."""

    def __init__(self, config: TransformerConfig, layers: int, causal: bool, cross_attention: bool) -> None:
        super().__init__()
        self.global_tokens = config.global_tokens
        self.positions = POSITIONS[config.positions](config, causal)
        self.embedding_norm = norm(config) if config.embedding_norm else None
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(block(config, layer, cross_attention) for layer in range(layers))
        self.final_norm = norm(config) if config.norm_placement != "post" else None
        self.windows = {config.layer_window(layer) for layer in range(layers)}

    def forward(
        self,
        embedded: Tensor,
        positions: Tensor,
        mask: AttentionMask,
        *,
        key_positions: Tensor | None = None,
        global_mask: Tensor | None = None,
        carried: Carried | None = None,
        memory: Tensor | None = None,
        memory_mask: AttentionMask | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states ``[B, T, D]`` of ``embedded [B, T, D]`` at ``positions [B or 1, T]``.

        Args:
            key_positions: ``[B, S]`` of all keys where they are not simply counted.
            global_mask: ``[B, T]``; by default the first ``global_tokens`` of every document.
        """
        x = self.positions(embedded, positions)
        x = self.dropout(x if self.embedding_norm is None else self.embedding_norm(x))
        places = self._places(x, positions, mask, key_positions, carried)
        if self.global_tokens:
            places.global_mask = positions < self.global_tokens if global_mask is None else global_mask
            if mask.query_segments is not None:
                places.global_mask = places.global_mask & (mask.query_segments > 0)
        for window in self.windows:
            mask.within(window, places.global_mask).look()
        for number, layer in enumerate(self.layers):
            earlier = None if carried is None else carried.leave(number, x)
            x = layer(x, mask, places, memory, memory_mask, cache, earlier)
        return x if self.final_norm is None else self.final_norm(x)

    def _places(
        self, x: Tensor, positions: Tensor, mask: AttentionMask, key_positions: Tensor | None, carried: Carried | None
    ) -> Places:
        before, turned = mask.offset, positions
        if carried is not None:  # earlier tokens stand before position 0 of the row's first document
            earlier = torch.arange(-carried.length, 0, device=x.device)
            turned = torch.cat((earlier.expand(len(positions), -1), positions), dim=1)
        if key_positions is None:
            queries = torch.arange(before, before + x.shape[1], device=x.device)[None]
            keys = torch.arange(before + x.shape[1], device=x.device)[None]
        else:
            queries, keys = positions, key_positions
        return Places(self.positions.rotation(turned, x.dtype), self.positions.bias(queries, keys))


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
        self.type_embedding = nn.Embedding(config.token_types, config.d_model) if config.token_types else None
        self.kv_heads = config.n_kv_heads
        """Of keys and values in a cache; a tensor-parallel rank has fewer."""
        self.embedding_scale = math.sqrt(config.d_model) if config.scale_embeddings else 1.0
        self.encoder: Stack | None = None
        self.decoder: Stack | None = None
        if config.arrangement != "decoder":
            both = config.arrangement == "encoder_decoder"
            self.encoder = Stack(config, config.n_encoder_layers if both else config.n_layers, False, False)
        if config.arrangement != "encoder":
            self.decoder = Stack(config, config.n_layers, True, cross_attention=self.encoder is not None)

    @property
    def embedding_weight(self) -> Tensor:
        """``[V, D]``, for output layers tied to the embedding."""
        return self.token_embedding.weight

    def blocks(self) -> list[Block]:
        """All blocks, the encoder's first."""
        stacks = [stack for stack in (self.encoder, self.decoder) if stack is not None]
        return [layer for stack in stacks for layer in stack.layers if isinstance(layer, Block)]

    def new_cache(self, batch: int, max_length: int) -> KVCache:
        """An empty cache for ``batch`` rows of up to ``max_length`` tokens, in the dtype attention computes in."""
        weight, config = self.token_embedding.weight, self.config
        dtype, device = weight.dtype, weight.device
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        return KVCache(batch, config.n_layers, self.kv_heads, max_length, config.d_head, dtype, device)

    def new_recurrence(self) -> Recurrence:
        """Nothing remembered yet, for a decoder with ``memory_length``.

        Raises:
            ConfigError: the configuration has no memory.
        """
        if not self.config.memory_length:
            raise ConfigError("backbone.memory_length is 0: there is nothing to carry from row to row")
        return Recurrence(self.config.n_layers, self.config.memory_length, self.config.d_model)

    def _embed(self, tokens: Tensor, token_types: Tensor | None) -> Tensor:
        x = self.token_embedding(tokens)
        if self.embedding_scale != 1.0:
            x = x * self.embedding_scale
        if self.type_embedding is not None:
            x = x + (local(self.type_embedding.weight)[0] if token_types is None else self.type_embedding(token_types))
        elif token_types is not None:
            raise ConfigError("token types were given, but backbone.token_types is 0")
        return x

    def _check_length(self, length: int) -> None:
        if length > self.config.max_length:
            raise ConfigError(f"{length} tokens are more than backbone.max_length {self.config.max_length}")

    def encode(
        self,
        tokens: Tensor,
        segments: Tensor | None = None,
        positions: Tensor | None = None,
        *,
        token_types: Tensor | None = None,
        global_mask: Tensor | None = None,
    ) -> Tensor:
        """Encoder states ``[B, S, D]`` of ``tokens [B, S]``; arguments as for :meth:`forward`.

        Raises:
            ConfigError: the arrangement has no encoder, or the sequence is too long.
        """
        if self.encoder is None:
            raise ConfigError("backbone.arrangement decoder has no encoder; encoder and encoder_decoder have one")
        self._check_length(tokens.shape[1])
        if positions is None:
            positions = default_positions(tokens, segments)
        x = self._embed(tokens, token_types)
        return self.encoder(x, positions, AttentionMask(False, segments), global_mask=global_mask)

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
        token_types: Tensor | None = None,
        prefix_mask: Tensor | None = None,
        global_mask: Tensor | None = None,
        carried: Carried | None = None,
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
            token_types: ``[B, T]``, below ``token_types`` of the configuration (default: all 0).
            prefix_mask: ``[B, T]``, True for tokens of a decoder that all of their segment see (prefix LM).
            global_mask: ``[B, T]``, True for global tokens (default: the first ones of every document).
            carried: states of the rows before (Transformer-XL); keeps those of these rows for the next.

        Returns:
            ``[B, T, D]``, normalised.

        Raises:
            ConfigError: more tokens than ``max_length``, or source or cache and arrangement do not fit.
        """
        self._check_source(source_tokens, memory, cache)
        if self.decoder is None:
            return self.encode(tokens, segments, positions, token_types=token_types, global_mask=global_mask)
        if cache is not None and carried is not None:
            raise ConfigError("a cache and carried states say the same: give one")
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
        key_positions = None if cache is None else cache.place(positions)
        if carried is not None:
            offset = carried.length
            segments = torch.ones_like(tokens) if segments is None else segments
            key_segments = torch.cat((carried.segments, segments), dim=1)
        # A single query is the last position: nothing comes after it.
        causal = length > 1
        if prefix_mask is not None and offset > 0:
            before = torch.zeros(len(tokens), offset, dtype=torch.bool, device=tokens.device)
            prefix_mask = torch.cat((before, prefix_mask), dim=1)
        mask = AttentionMask(causal, segments, key_segments, offset, prefix=prefix_mask)
        memory_mask = None
        if self.encoder is not None:
            if memory is None:
                assert source_tokens is not None
                memory = self.encode(source_tokens, source_segments, source_positions)
            memory_mask = cross_mask(segments, source_segments, tokens, memory)
        hidden = self.decoder(
            self._embed(tokens, token_types),
            positions,
            mask,
            key_positions=key_positions,
            carried=carried,
            memory=memory,
            memory_mask=memory_mask,
            cache=cache,
        )
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
        return AttentionMask(False, cross=True)
    if segments is None:
        segments = torch.ones_like(tokens)
    if source_segments is None:
        source_segments = torch.ones(memory.shape[:2], dtype=segments.dtype, device=memory.device)
    return AttentionMask(False, segments, source_segments, cross=True)
