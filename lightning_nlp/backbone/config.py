"""The only truth about an architecture. Imports no torch, so that listing sizes is instant."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, cast

from lightning_nlp.backbone import checks, counting
from lightning_nlp.errors import ConfigError, nearest

SIZES: dict[str, dict[str, int]] = {
    "nano": {"n_layers": 2, "d_model": 128, "n_heads": 4},
    "micro": {"n_layers": 4, "d_model": 128, "n_heads": 4},
    "mini": {"n_layers": 4, "d_model": 256, "n_heads": 4},
    "small": {"n_layers": 6, "d_model": 384, "n_heads": 6},
    "base": {"n_layers": 12, "d_model": 768, "n_heads": 12},
    "medium": {"n_layers": 24, "d_model": 1024, "n_heads": 16},
    "large": {"n_layers": 36, "d_model": 1280, "n_heads": 20},
    "xl": {"n_layers": 24, "d_model": 2048, "n_heads": 16},
}
"""Named shapes; ``base``, ``medium`` and ``large`` are those of GPT-2 (124M), GPT-2 medium and GPT-2 large."""

FROM_SIZE = cast(int, None)
"""Default of fields that the named size, or another field, decides; filled in when the configuration is made."""
DERIVED = cast(bool, None)
"""The same, for switches."""

GATED = {"swiglu": "silu", "geglu": "gelu", "geglu_tanh": "gelu_tanh", "reglu": "relu"}
"""Gated feed-forwards and the activation of their gate."""

Arrangement = Literal["encoder", "decoder", "encoder_decoder"]
Positions = Literal["rotary", "learned", "sinusoidal", "alibi", "relative", "none"]
Feedforward = Literal["gelu", "gelu_tanh", "relu", "relu2", "silu", "swiglu", "geglu", "geglu_tanh", "reglu"]
Init = Literal["gpt2", "bert", "t5", "xavier", "small", "mup"]


@dataclass(frozen=True, kw_only=True)
class RotaryScaling:
    """How rotary positions reach further than the model was trained for."""

    kind: Literal["linear", "ntk", "yarn", "llama3"]
    """Slower angles for all (Chen et al. 2023), a larger base (NTK-aware), or by parts (Peng et al. 2023; Llama 3)."""
    factor: float
    """Times the original length."""
    original_length: int = 8192
    """Length the model was trained for (yarn, llama3)."""
    low_frequency: float = 1.0
    """llama3: below this many turns in the original length, angles are divided by the factor."""
    high_frequency: float = 4.0
    """llama3: above this many turns, angles stay."""
    beta_fast: float = 32.0
    """yarn: turns in the original length above which angles stay."""
    beta_slow: float = 1.0
    """yarn: turns below which angles are divided by the factor."""
    attention_factor: float | None = None
    """yarn: height of sine and cosine (default: 0.1 ln(factor) + 1)."""


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape and parts of a Transformer. Fields left out come from ``size``; all are concrete once it is made.

    Raises:
        ConfigError: impossible combinations, all named in one line.
    """

    size: str | None = None
    """Named size (nano, micro, mini, small, base, medium, large, xl); other fields given beside it win."""
    arrangement: Arrangement = "decoder"
    """encoder (BERT), decoder (GPT) or encoder_decoder (T5)."""
    vocab_size: int | None = None
    """Tokens the embedding knows; taken from the tokenizer when left out."""
    pad_id: int | None = None
    """Token that fills up rows; taken from the tokenizer when left out."""
    decoder_start_id: int | None = None
    """Token that targets of an encoder_decoder start from (default: the tokenizer's start token, else its padding)."""
    n_layers: int = FROM_SIZE
    """Blocks of the stack (of the decoder in an encoder_decoder)."""
    n_encoder_layers: int = FROM_SIZE
    """Blocks of the encoder in an encoder_decoder (default: n_layers)."""
    d_model: int = FROM_SIZE
    """Width of the hidden states."""
    n_heads: int = FROM_SIZE
    """Attention heads."""
    n_kv_heads: int = FROM_SIZE
    """Heads of keys and values; fewer than n_heads is grouped-query, 1 is multi-query attention (default: n_heads)."""
    d_head: int = FROM_SIZE
    """Width of a head (default: d_model / n_heads)."""
    d_ff: int = FROM_SIZE
    """Inner width of the feed-forward (default: 4 d_model, or 8/3 d_model rounded up to 64 where it is gated)."""
    max_length: int = 1024
    """Positions available."""

    positions: Positions = "rotary"
    """rotary, learned or sinusoidal vectors, alibi or relative (T5) score biases, or none."""
    sinusoid: Literal["interleaved", "halves", "fairseq"] = "interleaved"
    """Layout of sinusoidal positions: Vaswani's, sines then cosines (Marian), or fairseq's."""
    position_shift: int = 0
    """In training, texts begin at a random position up to this one: longer texts meet no new positions (SHAPE)."""
    rotary_base: float = 10000.0
    """Wavelength base of rotary positions."""
    rotary_share: float = 1.0
    """Share of a head's dimensions that rotary positions turn (GPT-NeoX: 0.25)."""
    rotary_scaling: RotaryScaling | None = None
    """Rotary positions beyond the trained length."""
    relative_buckets: int = 32
    """Distances that relative positions tell apart."""
    relative_distance: int = 128
    """From this distance on, relative positions are all the same."""

    attention: Literal["dot_product", "additive"] = "dot_product"
    """Scores: scaled products (Vaswani et al. 2017) or v^T tanh(q + k) (Bahdanau et al. 2015)."""
    attention_scale: float | None = None
    """Factor of dot products (default: d_head^-0.5; T5: 1)."""
    attention_softcap: float | None = None
    """Scores go through cap * tanh(score / cap) (Gemma 2)."""
    qk_norm: bool = False
    """Normalise queries and keys of every head."""
    window: int | None = None
    """Self-attention sees keys less than this many positions away; everything when left out."""
    full_attention_every: int | None = None
    """With a window: every n-th layer sees everything (Gemma: 2)."""
    global_tokens: int | None = None
    """With a window: tokens at the start of a document that see, and are seen by, all of it (Longformer)."""
    memory_length: int = 0
    """Hidden states of earlier rows a layer also attends to (Transformer-XL)."""

    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation."""
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    """Before each sub-layer (GPT-2), after each residual sum (Vaswani, BERT), or before and after it (Gemma 2)."""
    norm_eps: float = 1e-5
    """Added to the variance."""
    embedding_norm: bool = False
    """Normalise embeddings before the first block (BERT, BART)."""
    parallel_residual: bool = False
    """Attention and feed-forward read the same input, side by side (GPT-NeoX); pre-norm only."""
    feedforward: Feedforward = "gelu"
    """Activation of the feed-forward network; swiglu, geglu, geglu_tanh and reglu are gated (Shazeer 2020)."""
    bias: bool = False
    """Biases in linear layers and layer norms."""
    qkv_bias: bool = DERIVED
    """Biases of queries, keys and values (default: as bias; Qwen 2 has these alone)."""
    dropout: float = 0.0
    """Of embeddings, attention weights and sub-layer outputs."""

    tie_embeddings: bool = True
    """Use the embedding as output matrix."""
    scale_embeddings: bool = DERIVED
    """Multiply embeddings by sqrt(d_model) (default: with sinusoidal positions, beside which they are too small)."""
    token_types: int = 0
    """Kinds of tokens with an embedding of their own (BERT's sentence A and B: 2)."""
    output_bias: bool = False
    """A bias for every token's score."""
    output_transform: bool = False
    """A dense layer, activation and norm before the output matrix (BERT)."""
    output_scale: float = 1.0
    """Factor of the scores of tokens (T5 with tied embeddings: d_model^-0.5)."""
    output_softcap: float | None = None
    """Scores of tokens go through cap * tanh(score / cap) (Gemma 2)."""

    init: Init = "gpt2"
    """Initial weights; mup makes learning rates transfer across widths."""
    init_std: float = 0.02
    """Standard deviation of initial weights (gpt2, bert, mup)."""
    mup_base_width: int | None = None
    """With init mup: the d_model at which learning rate and deviation were tuned."""
    given: dict[str, Any] = field(init=False, compare=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.rotary_scaling, dict):  # checkpoints hold plain values
            object.__setattr__(self, "rotary_scaling", RotaryScaling(**self.rotary_scaling))
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init and getattr(self, f.name) != f.default}
        object.__setattr__(self, "given", given)
        if self.size is not None and self.size not in SIZES:
            known = f"{nearest(self.size, SIZES)} (known: {', '.join(SIZES)})"
            raise ConfigError(f"unknown backbone.size '{self.size}'{known}")
        for name, value in SIZES[self.size or "nano"].items():
            self._fill(name, value)
        if self.arrangement == "encoder_decoder":
            self._fill("n_encoder_layers", self.n_layers)
        self._fill("n_kv_heads", self.n_heads)
        self._fill("d_head", self.d_model // max(self.n_heads, 1))
        self._fill("d_ff", -(-8 * self.d_model // 3 // 64) * 64 if self.gated else 4 * self.d_model)
        self._fill("qkv_bias", self.bias)
        self._fill("scale_embeddings", self.positions == "sinusoidal")
        if problems := checks.problems(self):
            raise ConfigError("; ".join(problems))

    def _fill(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> TransformerConfig:
        """A copy with some fields changed; everything filled in before stays."""
        return TransformerConfig(**{**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``TransformerConfig(**config.to_dict()) == config``."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        if self.rotary_scaling is not None:
            values["rotary_scaling"] = asdict(self.rotary_scaling)
        return values

    # What follows from the fields -------------------------------------------------------------------------------

    @property
    def gated(self) -> bool:
        """The feed-forward has a gate."""
        return self.feedforward in GATED

    @property
    def causal(self) -> bool:
        """Tokens of the main stack do not see later ones."""
        return self.arrangement != "encoder"

    @property
    def rotary_width(self) -> int:
        """Dimensions of a head that are turned."""
        return int(self.d_head * self.rotary_share)

    @property
    def width_multiplier(self) -> float:
        """d_model over the width that was tuned (muP, Yang et al. 2022); 1 for other kinds of initial weights."""
        return self.d_model / self.mup_base_width if self.init == "mup" and self.mup_base_width else 1.0

    def layer_window(self, layer: int) -> int | None:
        """Window of one layer, counted from 0."""
        every = self.full_attention_every
        return None if every and (layer + 1) % every == 0 else self.window

    def num_params(self, embeddings: bool = True) -> int:
        """Parameters of the backbone; without ``embeddings`` (tokens, types, positions), of blocks and norms alone.

        Raises:
            ConfigError: the embedding is asked for and ``vocab_size`` is not known.
        """
        return counting.num_params(self, embeddings)

    def flops_per_token(self, length: int) -> int:
        """Training FLOPs a token at sequence length T; see :func:`lightning_nlp.backbone.counting.flops_per_token`."""
        return counting.flops_per_token(self, length)
