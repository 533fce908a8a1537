"""The only truth about an architecture. Imports no torch, so that listing sizes is instant."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast

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


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape and parts of a Transformer. Fields left out come from ``size``; all are concrete once it is made.

    Raises:
        ConfigError: impossible combinations, all named in one line.
    """

    size: str | None = None
    """Named size (nano, micro, mini, small, base, medium, large, xl); other fields given beside it win."""
    arrangement: Literal["encoder", "decoder", "encoder_decoder"] = "decoder"
    """encoder (BERT), decoder (GPT) or encoder_decoder (T5)."""
    vocab_size: int | None = None
    """Tokens the embedding knows; taken from the tokenizer when left out."""
    pad_id: int | None = None
    """Token that fills up rows; taken from the tokenizer when left out."""
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
    """Inner width of the feed-forward (default: 4 d_model, or 8/3 d_model rounded up to 64 for swiglu)."""
    max_length: int = 1024
    """Positions available."""
    positions: Literal["rotary", "learned", "sinusoidal", "none"] = "rotary"
    """How positions are told apart."""
    rotary_base: float = 10000.0
    """Wavelength base of rotary positions."""
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    """Normalisation."""
    norm_placement: Literal["pre", "post"] = "pre"
    """Before each sub-layer (GPT-2) or after each residual sum (Vaswani, BERT)."""
    norm_eps: float = 1e-5
    """Added to the variance."""
    feedforward: Literal["gelu", "swiglu"] = "gelu"
    """Feed-forward network."""
    bias: bool = False
    """Biases in linear layers and layer norms."""
    dropout: float = 0.0
    """Of embeddings, attention weights and sub-layer outputs."""
    tie_embeddings: bool = True
    """Use the embedding as output matrix."""
    init_std: float = 0.02
    """Standard deviation of initial weights; residual outputs get less with depth."""
    given: dict[str, Any] = field(init=False, compare=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.init and getattr(self, f.name) != f.default}
        object.__setattr__(self, "given", given)
        if self.size is not None and self.size not in SIZES:
            raise ConfigError(
                f"unknown backbone.size '{self.size}'{nearest(self.size, SIZES)} (known: {', '.join(SIZES)})"
            )
        for name, value in SIZES[self.size or "nano"].items():
            self._fill(name, value)
        if self.arrangement == "encoder_decoder":
            self._fill("n_encoder_layers", self.n_layers)
        self._fill("n_kv_heads", self.n_heads)
        if "d_head" not in given and self.n_heads > 0 and self.d_model % self.n_heads:
            raise ConfigError(f"backbone.n_heads {self.n_heads} does not divide backbone.d_model {self.d_model}")
        self._fill("d_head", self.d_model // max(self.n_heads, 1))
        gated = self.feedforward == "swiglu"
        self._fill("d_ff", -(-8 * self.d_model // 3 // 64) * 64 if gated else 4 * self.d_model)
        if problems := list(self._problems()):
            raise ConfigError("; ".join(problems))

    def _fill(self, name: str, value: int) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def _problems(self) -> list[str]:
        found = []
        positive = ["n_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_ff", "max_length"]
        for name in [*positive, *(["vocab_size"] if self.vocab_size is not None else [])]:
            if getattr(self, name) < 1:
                found.append(f"backbone.{name} must be at least 1, not {getattr(self, name)}")
        if not found and self.n_heads % self.n_kv_heads:
            found.append(f"backbone.n_kv_heads {self.n_kv_heads} does not divide backbone.n_heads {self.n_heads}")
        if self.positions == "rotary" and self.d_head % 2:
            found.append(f"backbone.positions rotary needs an even backbone.d_head, not {self.d_head}")
        if self.positions == "sinusoidal" and self.d_model % 2:
            found.append(f"backbone.positions sinusoidal needs an even backbone.d_model, not {self.d_model}")
        if not 0 <= self.dropout < 1:
            found.append(f"backbone.dropout must be in [0, 1), not {self.dropout}")
        if self.n_encoder_layers is not None and self.arrangement != "encoder_decoder":
            found.append(
                f"backbone.n_encoder_layers needs backbone.arrangement encoder_decoder, not {self.arrangement}"
            )
        elif self.n_encoder_layers is not None and self.n_encoder_layers < 1:
            found.append(f"backbone.n_encoder_layers must be at least 1, not {self.n_encoder_layers}")
        if self.pad_id is not None and self.vocab_size is not None and not 0 <= self.pad_id < self.vocab_size:
            found.append(f"backbone.pad_id {self.pad_id} is outside backbone.vocab_size {self.vocab_size}")
        return found

    def replace(self, **changes: Any) -> TransformerConfig:
        """A copy with some fields changed; everything filled in before stays."""
        return TransformerConfig(**{**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``TransformerConfig(**config.to_dict()) == config``."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}

    # Counting -------------------------------------------------------------------------------------------------

    def _norm_params(self) -> int:
        return self.d_model * (2 if self.norm == "layernorm" and self.bias else 1)

    def _attention_params(self) -> int:
        inner, inner_kv = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        weights = self.d_model * (inner + 2 * inner_kv) + inner * self.d_model
        return weights + (inner + 2 * inner_kv + self.d_model if self.bias else 0)

    def _feedforward_params(self) -> int:
        up = 2 if self.feedforward == "swiglu" else 1
        return (up + 1) * self.d_model * self.d_ff + (up * self.d_ff + self.d_model if self.bias else 0)

    def _stack_params(self, layers: int, sublayers_of_attention: int) -> int:
        block = sublayers_of_attention * (self._attention_params() + self._norm_params())
        block += self._feedforward_params() + self._norm_params()
        return layers * block + (self._norm_params() if self.norm_placement == "pre" else 0)

    def num_params(self, embeddings: bool = True) -> int:
        """Parameters of the backbone; without ``embeddings``, those of the blocks and norms alone."""
        stacks = self._stack_params(self.n_layers, 2 if self.arrangement == "encoder_decoder" else 1)
        if self.arrangement == "encoder_decoder":
            stacks += self._stack_params(self.n_encoder_layers, 1)
        if not embeddings:
            return stacks
        if self.vocab_size is None:
            raise ConfigError("backbone.vocab_size must be known to count the embedding")
        learned = self.max_length * self.d_model if self.positions == "learned" else 0
        return stacks + self.vocab_size * self.d_model + learned

    def flops_per_token(self, length: int) -> float:
        """Training FLOPs a token: ``6 N + 12 L H Dh T``, N = matrices of the blocks + output head.

        The convention of PaLM (Chowdhery et al. 2022, appendix B): attention counted in full, no input embedding.
        """
        layers = self.n_layers + (self.n_encoder_layers if self.arrangement == "encoder_decoder" else 0)
        matrices = self.num_params(embeddings=False) + (self.vocab_size or 0) * self.d_model
        return 6.0 * matrices + 12.0 * layers * self.n_heads * self.d_head * length
