"""Parameters and FLOPs of a configuration, by arithmetic: no model is built. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lightning_nlp.errors import ConfigError

if TYPE_CHECKING:
    from lightning_nlp.backbone.config import TransformerConfig

Convention = Literal["palm", "causal"]
"""How attention is counted: as if every query saw every key, or, where it is causal, the half it does see."""
Side = Literal["tokens", "source", "labels"]
"""What a matrix is applied to: tokens of the main stack, of the source, or positions with a label."""


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


@dataclass(frozen=True)
class Work:
    """How much a step computes on, which is what its FLOPs follow from.

    Rows count as equally long: of rows that differ, attention is a little more.
    """

    rows: float
    tokens: float
    """Without padding; in an encoder_decoder, of the targets."""
    labels: float
    """Positions at which the output matrix is applied."""
    source: float = 0.0
    """Tokens of the sources in an encoder_decoder."""

    def of(self, side: Side) -> float:
        """How often a matrix on that side is applied."""
        return float(getattr(self, side))


def matrices(config: TransformerConfig, outputs: int | None = None) -> dict[Side, int]:
    """Numbers in the matrices of the blocks and of the output, by what they are applied to.

    Cross-attention makes its keys and values of the source. The input embedding, positions, norms and biases do not
    count. ``outputs`` is the width of the output layer (default: the vocabulary).
    """
    head = config.d_model * ((config.vocab_size or 0) if outputs is None else outputs)
    head += config.d_model**2 if config.output_transform and outputs is None else 0
    inner, inner_kv = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
    cross = config.n_layers * 2 * inner_kv * config.d_model if config.arrangement == "encoder_decoder" else 0
    block = attention_params(config, False) + global_params(config, False) + feedforward_params(config, False)
    source = config.n_encoder_layers * block if cross else 0
    queries = config.n_layers * 2 * inner * config.d_model if cross else 0
    return {"tokens": config.n_layers * block + queries, "source": source + cross, "labels": head}


def seen_keys(config: TransformerConfig, layer: int, length: float, causal: bool, convention: Convention) -> float:
    """Keys a query of self-attention sees, on average over a row of ``length`` tokens."""
    window, half = config.layer_window(layer), causal and convention == "causal"
    if window is None:
        return (length / 2 if half else length) + config.memory_length
    if not causal:
        return min(2 * window - 1, length)
    near = min(window, length)
    return near - near**2 / (2 * length) if half and length else near


def training_flops(
    config: TransformerConfig,
    work: Work,
    convention: Convention = "palm",
    outputs: int | None = None,
    trained: Mapping[Side, int] | None = None,
    extra: Mapping[Side, int] | None = None,
) -> float:
    """FLOPs of one forward and backward pass.

    6 for a token and a number in a matrix (Kaplan et al. 2020), 4 where that matrix is frozen, since its gradient is
    not made; 12 for a query, a key it sees and a dimension of a head. What is computed a second time to save memory
    does not count.

    Args:
        config: with its vocabulary size, where ``outputs`` is not given.
        work: what is computed on.
        convention: how attention is counted (Chowdhery et al. 2022, appendix B, count it in full).
        outputs: width of the output layer (default: the vocabulary).
        trained: of :func:`matrices`, the part that is trained (default: all).
        extra: numbers in the matrices of adapters, all trained.
    """
    all_of = matrices(config, outputs)
    total = 0.0
    for side, size in all_of.items():
        updated = size if trained is None else trained.get(side, 0)
        total += work.of(side) * (4 * size + 2 * updated + 6 * (extra or {}).get(side, 0))
    if not work.rows:
        return total
    width, length, source = 12 * config.n_heads * config.d_head, work.tokens / work.rows, work.source / work.rows
    for layer in range(config.n_layers):
        keys = seen_keys(config, layer, length, config.causal, convention)
        total += width * work.tokens * (keys + (source if config.arrangement == "encoder_decoder" else 0.0))
    for layer in range(config.n_encoder_layers if config.arrangement == "encoder_decoder" else 0):
        total += width * work.source * seen_keys(config, layer, source, False, convention)
    return total


def flops_per_token(config: TransformerConfig, length: int, convention: Convention = "palm") -> int:
    """Training FLOPs a token at sequence length T: ``6 N + 12 L H Dh S``, S the keys a query has: T, or the window.

    N counts the matrices of the blocks and the output head, not the input embedding, positions, norms and biases. In an
    encoder_decoder, for one target token and one source token of an equally long source, cross-attention included.
    """
    source = length if config.arrangement == "encoder_decoder" else 0
    return round(training_flops(config, Work(1, length, length, source), convention) / length)
