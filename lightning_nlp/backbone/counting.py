"""Parameters and FLOPs of a configuration, by arithmetic: no model is built. Imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_nlp.errors import ConfigError

if TYPE_CHECKING:
    from lightning_nlp.backbone.config import TransformerConfig


def norm_params(config: TransformerConfig, width: int | None = None) -> int:
    """One norm over ``width`` dimensions (default: d_model)."""
    return (width or config.d_model) * (2 if config.norm == "layernorm" and config.bias else 1)


def attention_params(config: TransformerConfig, extras: bool) -> int:
    """Matrices of one attention; with ``extras``, its biases, head norms and score vector too."""
    inner, inner_kv = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
    total = config.d_model * (inner + 2 * inner_kv) + inner * config.d_model
    if not extras:
        return total
    total += inner + 2 * inner_kv if config.qkv_bias else 0
    total += config.d_model if config.bias else 0
    total += 2 * norm_params(config, config.d_head) if config.qk_norm else 0
    return total + (inner if config.attention == "additive" else 0)


def global_params(config: TransformerConfig, extras: bool) -> int:
    """The second queries, keys and values that Longformer's global tokens have in self-attention."""
    if not config.global_tokens:
        return 0
    widths = (config.n_heads + 2 * config.n_kv_heads) * config.d_head
    return config.d_model * widths + (widths if extras and config.qkv_bias else 0)


def feedforward_params(config: TransformerConfig, extras: bool) -> int:
    """Matrices of one feed-forward; with ``extras``, its biases too."""
    up = 2 if config.gated else 1
    biases = up * config.d_ff + config.d_model if extras and config.bias else 0
    return (up + 1) * config.d_model * config.d_ff + biases


def stacks(config: TransformerConfig) -> list[tuple[int, int]]:
    """(blocks, attentions a block has) of each stack."""
    if config.arrangement == "encoder_decoder":
        return [(config.n_encoder_layers, 1), (config.n_layers, 2)]
    return [(config.n_layers, 1)]


def block_params(config: TransformerConfig, extras: bool) -> int:
    """All blocks: matrices; with ``extras``, biases and the norms inside attention too."""
    attention, feedforward = attention_params(config, extras), feedforward_params(config, extras)
    own = global_params(config, extras) + feedforward
    return sum(layers * (attentions * attention + own) for layers, attentions in stacks(config))


def num_params(config: TransformerConfig, embeddings: bool = True) -> int:
    """See :meth:`TransformerConfig.num_params`.

    Raises:
        ConfigError: the embedding is asked for and ``vocab_size`` is not known.
    """
    each = 2 if config.norm_placement == "sandwich" else 1
    norms = each * sum(layers * (attentions + 1) for layers, attentions in stacks(config))
    norms += len(stacks(config)) * ((config.norm_placement != "post") + config.embedding_norm)
    total = block_params(config, extras=True) + norms * norm_params(config)
    if config.positions == "relative":
        total += len(stacks(config)) * config.relative_buckets * config.n_heads
    if not embeddings:
        return total
    if config.vocab_size is None:
        raise ConfigError("backbone.vocab_size must be known to count the embedding")
    learned = len(stacks(config)) * config.max_length if config.positions == "learned" else 0
    return total + (config.vocab_size + config.token_types + learned) * config.d_model


def flops_per_token(config: TransformerConfig, length: int) -> int:
    """Training FLOPs a token at sequence length T: ``6 N + 12 L H Dh S``, S the keys a query has: T, or the window.

    N counts the matrices of the blocks and the output head, not the input embedding, positions, norms and biases;
    attention is counted in full, also where it is causal. The convention of PaLM (Chowdhery et al. 2022, appendix B).
    A window is counted as what it lets a query see. In an encoder_decoder, for one target token and one source token of
    an equally long source, cross-attention included.
    """
    matrices = block_params(config, extras=False) + (config.vocab_size or 0) * config.d_model
    sides = 1 if config.arrangement == "decoder" else 2
    keys = 0
    for layers, attentions in stacks(config):
        for layer in range(layers):
            window = config.layer_window(layer)
            seen = length + config.memory_length if window is None else min(sides * window - sides + 1, length)
            keys += seen + (attentions - 1) * length
    return 6 * matrices + 12 * keys * config.n_heads * config.d_head
