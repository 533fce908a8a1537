"""Memory of a training step by arithmetic: what a forward pass keeps for the backward pass, and scores of tokens.

Counted in numbers a token keeps in a block, as PyTorch keeps them when nothing is compiled: the input of every norm and
of every matrix, queries, keys and values, what activations need of their input. A test counts them on real passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightning_nlp.backbone import chunked_loss, loss
from lightning_nlp.backbone.attention import PRODUCTS_LIMIT
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.recompute import Kind

FEEDFORWARD = {"relu": 1, "reglu": 3}
"""Numbers of the inner width that are kept; of other gates 4, of other activations 2."""


@dataclass(frozen=True)
class Bytes:
    """How wide numbers are in memory."""

    wide: int = 4
    """Of the residual stream, which norms read."""
    narrow: int = 4
    """Of what matrices are applied to."""


@dataclass(frozen=True)
class Kept:
    """Bytes that wait for the backward pass."""

    stream: float = 0.0
    """Of the residual stream and around norms."""
    inner: float = 0.0
    """Within attention and feed-forward: what tensor-parallel ranks share out."""

    def __add__(self, other: Kept) -> Kept:
        return Kept(self.stream + other.stream, self.inner + other.inner)

    def times(self, number: float) -> Kept:
        return Kept(self.stream * number, self.inner * number)


def score_matrices(config: TransformerConfig, length: float, numbers: Bytes, on_cpu: bool) -> float:
    """Matrices ``[H, T, S]`` of scores that a row keeps in an attention; none where a fused kernel does it."""
    if config.attention == "additive":
        return 2.0 * config.d_head + 1
    dropped = 2 if config.dropout else 0
    if config.attention_softcap is not None:
        return 2.0 + dropped
    if config.positions == "relative":
        return 1.0 + dropped
    if not on_cpu:
        return 0.0
    products = numbers.narrow == 2 and length <= PRODUCTS_LIMIT
    return 1.0 + dropped if products or dropped else 0.0


def attention_kept(
    config: TransformerConfig, length: float, numbers: Bytes, on_cpu: bool, keys: float | None = None
) -> Kept:
    """Of a token in one attention; ``keys`` of a source make it cross-attention, whose keys are counted there."""
    heads, groups = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
    itself, window = keys is None, config.layer_window(0)
    if keys is None:
        keys = length if window is None else min(2 * window, length)
    matrices = score_matrices(config, max(length, keys), numbers, on_cpu)
    inner = 2 * heads + (heads if config.qk_norm else 0)  # queries and output
    if itself:
        inner += 2 * groups
        if not matrices:  # kernels keep what they are given; matrix products of turned vectors share it
            inner += heads + groups if config.positions == "rotary" else 0
            inner += config.d_model if on_cpu else 0  # rows are cut into their documents, and put together again
    return around(config, numbers, on_cpu) + Kept(0.0, numbers.narrow * (inner + config.n_heads * keys * matrices))


def around(config: TransformerConfig, numbers: Bytes, on_cpu: bool) -> Kept:
    """Of a token at a sub-layer: the input of its norm, and what comes out, which a matrix reads."""
    norms = 2 if config.norm_placement == "sandwich" else 1
    # A CPU makes root mean squares of several operations, in float32.
    several = (4 if numbers.wide == 4 else 4 + numbers.wide) if config.norm == "rmsnorm" and on_cpu else 0
    dropout = numbers.wide if config.dropout else 0
    return Kept(config.d_model * (norms * (numbers.wide + several) + numbers.narrow + dropout))


def feedforward_kept(config: TransformerConfig, numbers: Bytes, on_cpu: bool) -> Kept:
    """Of a token in one feed-forward."""
    inner = FEEDFORWARD.get(config.feedforward, 4 if config.gated else 2) * config.d_ff
    return around(config, numbers, on_cpu) + Kept(0.0, numbers.narrow * inner)


def activations(
    config: TransformerConfig,
    rows: float,
    length: float,
    source: float = 0.0,
    numbers: Bytes = Bytes(),
    on_cpu: bool = True,
    recomputed: Kind | None = None,
) -> Kept:
    """What a forward pass of the backbone keeps; with activation checkpointing also what one block then makes again.

    Args:
        config: of the backbone.
        rows: of a micro-batch.
        length: tokens of a row, padding included.
        source: tokens of its source in an encoder_decoder.
        numbers: widths of numbers.
        on_cpu: the kernels are those of a CPU.
        recomputed: how activation checkpointing is done.
    """
    end = Kept(config.d_model * (numbers.wide + numbers.narrow))  # the last norm, and what the output reads
    feedforward = feedforward_kept(config, numbers, on_cpu)
    block = attention_kept(config, length, numbers, on_cpu) + feedforward

    def blocks(number: int, each: Kept, attentions: int) -> Kept:
        if recomputed is None:
            return each.times(number)
        return remembered(config, numbers, attentions, recomputed).times(number) + each

    if config.arrangement != "encoder_decoder":
        return (blocks(config.n_layers, block, 1) + end).times(rows * length)
    cross = attention_kept(config, length, numbers, on_cpu, keys=source)
    decoder = (blocks(config.n_layers, block + cross, 2) + end).times(rows * length)
    keys_and_values = Kept(0.0, numbers.narrow * 2 * config.n_kv_heads * config.d_head * config.n_layers)
    own = attention_kept(config, source, numbers, on_cpu) + feedforward
    return decoder + (blocks(config.n_encoder_layers, own, 1) + end + keys_and_values).times(rows * source)


def remembered(config: TransformerConfig, numbers: Bytes, attentions: int, kind: Kind) -> Kept:
    """Of a token in a block that forgets: its input, and with ``selective`` what matrices and fused attention made."""
    found = Kept(config.d_model * numbers.wide)
    if kind == "full":
        return found
    heads, groups = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
    attention = Kept(config.d_model * numbers.narrow, numbers.narrow * (2 * heads + 2 * groups))
    inner = (2 if config.gated else 1) * config.d_ff
    return found + attention.times(attentions) + Kept(config.d_model * numbers.narrow, numbers.narrow * inner)


def scores_of_tokens(config: TransformerConfig, labels: float, numbers: Bytes, on_cpu: bool = True) -> float:
    """Bytes at the loss over ``labels`` positions: scores, their logarithms and gradients, or a block at a time."""
    vocabulary = config.vocab_size or 0
    if labels * vocabulary * 4 <= (loss.CHUNK_ABOVE if on_cpu else loss.GPU_CHUNK_ABOVE):
        return labels * vocabulary * (12 + (numbers.narrow if numbers.narrow < 4 else 0))
    rows = chunked_loss.cpu_rows(vocabulary * numbers.narrow)
    if not on_cpu:
        rows = chunked_loss.gpu_rows(vocabulary * numbers.narrow, chunked_loss.GPU_BYTES)
    held = min(rows, labels) * vocabulary * numbers.narrow * (1 if on_cpu else 2)  # a GPU's gradient is beside them
    return held + labels * config.d_model * numbers.narrow + vocabulary * config.d_model * 4
