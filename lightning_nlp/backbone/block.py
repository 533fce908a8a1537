"""The one block of which encoders, decoders and encoder-decoders are made, and its attentions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.attention import Scoring, attend, global_places
from lightning_nlp.backbone.cache import KVCache
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.layers import feedforward, norm
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.parallel.collectives import local
from lightning_nlp.backbone.rotary import Rotation
from lightning_nlp.backbone.score_bias import ScoreBias
from lightning_nlp.errors import ConfigError


@dataclass
class Places:
    """Where tokens stand, in the forms attention wants: made once a forward pass, read by every layer."""

    rotation: Rotation | None = None
    """Of all keys; queries are the last of them."""
    bias: ScoreBias | None = None
    global_mask: Tensor | None = None
    """``[B, T]``, True for Longformer's global tokens."""


class Attention(nn.Module):
    """What self- and cross-attention share: heads, how scores are made, and the output matrix."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.d_head = config.n_heads, config.n_kv_heads, config.d_head
        self.output = nn.Linear(self.heads * self.d_head, config.d_model, bias=config.bias)
        self.dropout = config.dropout
        self.softcap = config.attention_softcap
        # muP: 1/d_head, since trained queries and keys correlate (Yang et al. 2022, definition 4.1).
        self.scale = config.attention_scale or (1 / config.d_head if config.init == "mup" else None)
        self.query_norm = norm(config, config.d_head) if config.qk_norm else None
        self.key_norm = norm(config, config.d_head) if config.qk_norm else None
        additive = config.attention == "additive"
        self.score_vector = nn.Parameter(torch.randn(self.heads, self.d_head) * self.d_head**-0.5) if additive else None

    def reset_parameters(self) -> None:
        """The vector of additive scores, of length 1 on average."""
        if self.score_vector is not None:
            nn.init.normal_(self.score_vector, std=self.d_head**-0.5)

    def split(self, x: Tensor, heads: int) -> Tensor:
        """``[B, T, heads * Dh] -> [B, heads, T, Dh]``."""
        return x.view(*x.shape[:2], heads, self.d_head).transpose(1, 2)

    def mix(self, query: Tensor, key: Tensor, value: Tensor, mask: AttentionMask, bias: ScoreBias | None) -> Tensor:
        """Values by scores: ``[B, H, T, Dh] -> [B, T, H * Dh]``."""
        scoring = Scoring(self.scale, self.softcap, local(self.score_vector), bias)
        mixed = attend(query, key, value, mask, self.dropout if self.training else 0.0, scoring)
        return mixed.transpose(1, 2).flatten(2)


class SelfAttention(Attention):
    """Multi-head attention of a sequence to itself; one matrix product makes queries, keys and values."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.window = config.layer_window(layer)
        self.sizes = [self.heads * self.d_head, self.kv_heads * self.d_head, self.kv_heads * self.d_head]
        self.query_key_value = nn.Linear(config.d_model, sum(self.sizes), bias=config.qkv_bias)

    def projected(self, x: Tensor, matrix: nn.Linear) -> tuple[Tensor, Tensor, Tensor]:
        """Queries ``[B, H, T, Dh]``, keys and values ``[B, Hkv, T, Dh]``, before positions."""
        query, key, value = matrix(x).split(self.sizes, dim=-1)
        query, key = self.split(query, self.heads), self.split(key, self.kv_heads)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, self.split(value, self.kv_heads)

    def mixed(
        self, x: Tensor, mask: AttentionMask, places: Places, cache: KVCache | None, earlier: Tensor | None
    ) -> Tensor:
        """What is seen, before the output matrix: ``[B, T, H * Dh]``."""
        query, key, value = self.projected(x, self.query_key_value)
        if earlier is not None:
            _, key_before, value_before = self.projected(earlier, self.query_key_value)
            key, value = torch.cat((key_before, key), dim=2), torch.cat((value_before, value), dim=2)
        if places.rotation is not None:
            rotation = places.rotation
            key = rotation(key)
            query = (rotation if earlier is None else rotation.last(query.shape[2]))(query)
        if cache is not None:
            key, value = cache.update(self.layer, key, value)
        return self.mix(query, key, value, mask.within(self.window, places.global_mask), places.bias)

    def forward(
        self,
        x: Tensor,
        mask: AttentionMask,
        places: Places,
        cache: KVCache | None = None,
        earlier: Tensor | None = None,
    ) -> Tensor:
        """``x [B, T, D] -> [B, T, D]``; ``earlier [B, M, D]`` are states before it that are seen as well."""
        return self.output(self.mixed(x, mask, places, cache, earlier))


class GlobalAttention(SelfAttention):
    """Windowed attention with global tokens, which see everything with matrices of their own (Beltagy et al. 2020)."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.global_query_key_value = nn.Linear(config.d_model, sum(self.sizes), bias=config.qkv_bias)

    def mixed(
        self, x: Tensor, mask: AttentionMask, places: Places, cache: KVCache | None, earlier: Tensor | None
    ) -> Tensor:
        near = super().mixed(x, mask, places, cache, earlier)
        if places.global_mask is None or self.window is None:
            return near
        spots, real = global_places(places.global_mask.expand(x.shape[:2]))
        query, key, value = self.projected(x, self.global_query_key_value)
        if places.rotation is not None:
            query, key = places.rotation(query), places.rotation(key)
        rows = torch.arange(len(x), device=x.device)[:, None]
        chosen = query.transpose(1, 2)[rows, spots].transpose(1, 2)  # [B, H, G, Dh]
        segments = mask.query_segments
        if segments is None:
            segments = torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
        far_mask = AttentionMask(False, segments[rows, spots] * real, segments, cross=True)
        bias = None if places.bias is None else places.bias.at(key_minus_query(spots, x.shape[1]))
        far = self.mix(chosen, key, value, far_mask, bias).to(near.dtype)
        # Rows with fewer global tokens write what they had: padding spots are real tokens of the window elsewhere.
        far = torch.where(real[..., None], far, near[rows, spots])
        return near.index_put((rows, spots), far)


def key_minus_query(spots: Tensor, length: int) -> Tensor:
    """Distances ``[B, G, T]`` of all keys from the queries at ``spots [B, G]``."""
    return torch.arange(length, device=spots.device) - spots[:, :, None]


class CrossAttention(Attention):
    """Attention of a decoder to the encoder's memory; its keys and values are computed once a sequence."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.query = nn.Linear(config.d_model, self.heads * self.d_head, bias=config.qkv_bias)
        self.key_value = nn.Linear(config.d_model, 2 * self.kv_heads * self.d_head, bias=config.qkv_bias)

    def forward(self, x: Tensor, memory: Tensor, mask: AttentionMask, cache: KVCache | None) -> Tensor:
        """``x [B, T, D]``, ``memory [B, S, D] -> [B, T, D]``."""
        query = self.split(self.query(x), self.heads)
        if self.query_norm is not None:
            query = self.query_norm(query)
        if cache is not None and self.layer in cache.cross:
            key, value = cache.cross[self.layer]
        else:
            key, value = self.split(self.key_value(memory), 2 * self.kv_heads).chunk(2, dim=1)
            if self.key_norm is not None:
                key = self.key_norm(key)
            if cache is not None:
                cache.cross[self.layer] = key, value
        return self.output(self.mix(query, key, value, mask, None))


class Block(nn.Module):
    """Self-attention, optional cross-attention and feed-forward, each with a residual and a norm.

    With ``f`` a sub-layer: pre-norm ``x + f(norm(x))`` (GPT-2), post-norm ``norm(x + f(x))`` (Vaswani et al. 2017),
    sandwich ``x + norm(f(norm(x)))`` (Ding et al. 2021, Gemma 2).
    """

    def __init__(self, config: TransformerConfig, layer: int, cross_attention: bool = False) -> None:
        super().__init__()
        self.post = config.norm_placement == "post"
        sandwich = config.norm_placement == "sandwich"
        self.attention_norm = norm(config)
        self.attention = (GlobalAttention if config.global_tokens else SelfAttention)(config, layer)
        self.attention_after = norm(config) if sandwich else None
        self.cross_attention = CrossAttention(config, layer) if cross_attention else None
        if cross_attention:
            self.cross_attention_norm = norm(config)
            self.cross_attention_after = norm(config) if sandwich else None
        self.feedforward_norm = norm(config)
        self.feedforward = feedforward(config)
        self.feedforward_after = norm(config) if sandwich else None
        self.dropout = nn.Dropout(config.dropout)

    def add(self, x: Tensor, part: Callable[[Tensor], Tensor], before: nn.Module, after: nn.Module | None) -> Tensor:
        """One sub-layer with its residual and norms."""
        if self.post:
            return before(x + self.dropout(part(x)))
        change = part(before(x))
        return x + self.dropout(change if after is None else after(change))

    def forward(
        self,
        x: Tensor,
        mask: AttentionMask,
        places: Places,
        memory: Tensor | None = None,
        memory_mask: AttentionMask | None = None,
        cache: KVCache | None = None,
        earlier: Tensor | None = None,
    ) -> Tensor:
        """``x [B, T, D] -> [B, T, D]``; ``earlier [B, M, D]``: this layer's inputs for the tokens before."""
        if earlier is not None and not self.post:
            earlier = self.attention_norm(earlier)
        x = self.add(
            x, lambda y: self.attention(y, mask, places, cache, earlier), self.attention_norm, self.attention_after
        )
        if (cross := self.cross_attention) is not None:
            assert memory is not None and memory_mask is not None
            x = self.add(
                x, lambda y: cross(y, memory, memory_mask, cache), self.cross_attention_norm, self.cross_attention_after
            )
        return self.add(x, self.feedforward, self.feedforward_norm, self.feedforward_after)


class ParallelBlock(Block):
    """Attention and feed-forward side by side on the same input, each after a norm of its own (GPT-NeoX)."""

    def forward(
        self,
        x: Tensor,
        mask: AttentionMask,
        places: Places,
        memory: Tensor | None = None,
        memory_mask: AttentionMask | None = None,
        cache: KVCache | None = None,
        earlier: Tensor | None = None,
    ) -> Tensor:
        if earlier is not None:
            earlier = self.attention_norm(earlier)
        seen = self.attention(self.attention_norm(x), mask, places, cache, earlier)
        return x + self.dropout(seen) + self.dropout(self.feedforward(self.feedforward_norm(x)))


def block(config: TransformerConfig, layer: int, cross_attention: bool = False) -> Block:
    """The configured kind of block."""
    return (ParallelBlock if config.parallel_residual else Block)(config, layer, cross_attention)


def blocks_of(module: nn.Module, setting: str) -> list[Block]:
    """The blocks in a model, which ``setting`` is about.

    Raises:
        ConfigError: there are none; names the setting.
    """
    blocks = [each for each in module.modules() if isinstance(each, Block)]
    if not blocks:
        raise ConfigError(f"{setting}: this model has no block of our backbone")
    return blocks
