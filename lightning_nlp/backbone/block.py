"""The one block of which encoders, decoders and encoder-decoders are made."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_nlp.backbone.attention import attend
from lightning_nlp.backbone.cache import KVCache
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.layers import feedforward, norm
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.positions import Rotation


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself; one matrix product makes queries, keys and values."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.d_head = config.n_heads, config.n_kv_heads, config.d_head
        self.sizes = [self.heads * self.d_head, self.kv_heads * self.d_head, self.kv_heads * self.d_head]
        self.query_key_value = nn.Linear(config.d_model, sum(self.sizes), bias=config.bias)
        self.output = nn.Linear(self.sizes[0], config.d_model, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor, mask: AttentionMask, rotation: Rotation | None, cache: KVCache | None) -> Tensor:
        """``x [B, T, D] -> [B, T, D]``."""
        batch, length, _ = x.shape
        query, key, value = self.query_key_value(x).split(self.sizes, dim=-1)
        query = query.view(batch, length, self.heads, self.d_head).transpose(1, 2)
        key = key.view(batch, length, self.kv_heads, self.d_head).transpose(1, 2)
        value = value.view(batch, length, self.kv_heads, self.d_head).transpose(1, 2)
        if rotation is not None:
            query, key = rotation(query), rotation(key)
        if cache is not None:
            key, value = cache.update(self.layer, key, value)
        mixed = attend(query, key, value, mask, self.dropout if self.training else 0.0)
        return self.output(mixed.transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Attention of a decoder to the encoder's memory; its keys and values are computed once a sequence."""

    def __init__(self, config: TransformerConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.d_head = config.n_heads, config.n_kv_heads, config.d_head
        self.query = nn.Linear(config.d_model, self.heads * self.d_head, bias=config.bias)
        self.key_value = nn.Linear(config.d_model, 2 * self.kv_heads * self.d_head, bias=config.bias)
        self.output = nn.Linear(self.heads * self.d_head, config.d_model, bias=config.bias)
        self.dropout = config.dropout

    def forward(self, x: Tensor, memory: Tensor, mask: AttentionMask, cache: KVCache | None) -> Tensor:
        """``x [B, T, D]``, ``memory [B, S, D] -> [B, T, D]``."""
        batch, length, _ = x.shape
        query = self.query(x).view(batch, length, self.heads, self.d_head).transpose(1, 2)
        if cache is not None and self.layer in cache.cross:
            key, value = cache.cross[self.layer]
        else:
            both = self.key_value(memory).view(batch, memory.shape[1], 2 * self.kv_heads, self.d_head).transpose(1, 2)
            key, value = both.chunk(2, dim=1)
            if cache is not None:
                cache.cross[self.layer] = key, value
        mixed = attend(query, key, value, mask, self.dropout if self.training else 0.0)
        return self.output(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention, optional cross-attention and feed-forward, each with a residual and a norm."""

    def __init__(self, config: TransformerConfig, layer: int, cross_attention: bool = False) -> None:
        super().__init__()
        self.pre = config.norm_placement == "pre"
        self.attention_norm = norm(config)
        self.attention = SelfAttention(config, layer)
        self.cross_attention = CrossAttention(config, layer) if cross_attention else None
        if cross_attention:
            self.cross_attention_norm = norm(config)
        self.feedforward_norm = norm(config)
        self.feedforward = feedforward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        mask: AttentionMask,
        rotation: Rotation | None = None,
        memory: Tensor | None = None,
        memory_mask: AttentionMask | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """``x [B, T, D] -> [B, T, D]``."""
        normed = self.attention_norm(x) if self.pre else x
        x = x + self.dropout(self.attention(normed, mask, rotation, cache))
        x = x if self.pre else self.attention_norm(x)
        if self.cross_attention is not None:
            assert memory is not None and memory_mask is not None
            normed = self.cross_attention_norm(x) if self.pre else x
            x = x + self.dropout(self.cross_attention(normed, memory, memory_mask, cache))
            x = x if self.pre else self.cross_attention_norm(x)
        normed = self.feedforward_norm(x) if self.pre else x
        x = x + self.dropout(self.feedforward(normed))
        return x if self.pre else self.feedforward_norm(x)
