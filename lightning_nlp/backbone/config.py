"""The only truth about an architecture. Imports no torch, so that listing sizes is instant."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal, cast, get_args, get_type_hints

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

CHOICES = ("arrangement", "positions", "norm", "norm_placement", "feedforward")
DEPTHS_AND_WIDTHS = ("n_layers", "n_encoder_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_ff")
COUNTS = (*DEPTHS_AND_WIDTHS, "vocab_size", "max_length")
ABOVE_ZERO = ("rotary_base", "norm_eps", "init_std")


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of ``number`` closest to ``wanted`` (the smaller of two), for messages."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted), default=1)


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
            known = f"{nearest(self.size, SIZES)} (known: {', '.join(SIZES)})"
            raise ConfigError(f"unknown backbone.size '{self.size}'{known}")
        for name, value in SIZES[self.size or "nano"].items():
            self._fill(name, value)
        if self.arrangement == "encoder_decoder":
            self._fill("n_encoder_layers", self.n_layers)
        self._fill("n_kv_heads", self.n_heads)
        self._fill("d_head", self.d_model // max(self.n_heads, 1))
        gated = self.feedforward == "swiglu"
        self._fill("d_ff", -(-8 * self.d_model // 3 // 64) * 64 if gated else 4 * self.d_model)
        if problems := [*self._wrong_values(), *self._wrong_pairs()]:
            raise ConfigError("; ".join(problems))

    def _fill(self, name: str, value: int) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def _wrong_values(self) -> list[str]:
        """Mistakes that one field makes alone."""
        found = []
        for name, hint in get_type_hints(TransformerConfig).items():
            choices = get_args(hint)
            if name in CHOICES and (value := getattr(self, name)) not in choices:
                known = f"{nearest(str(value), choices)} (known: {', '.join(choices)})"
                found.append(f"unknown backbone.{name} '{value}'{known}")
        for name in COUNTS:
            value = self.given.get(name, 1)  # what is derived from a wrong value is not a second mistake
            if value < 1:
                found.append(f"backbone.{name} must be at least 1, not {value}")
        if self.pad_id is not None and self.pad_id < 0:
            found.append(f"backbone.pad_id must not be negative, not {self.pad_id}")
        for name in ABOVE_ZERO:
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                found.append(f"backbone.{name} must be above 0, not {value}")
        if not 0 <= self.dropout < 1:
            found.append(f"backbone.dropout must be in [0, 1), not {self.dropout}")
        return found

    def _wrong_pairs(self) -> list[str]:
        """Mistakes that two fields make together."""
        found = []
        sound = self.n_heads > 0 and self.d_model > 0
        if "d_head" not in self.given and sound and self.d_model % self.n_heads:
            found.append(
                f"backbone.n_heads {self.n_heads} does not divide backbone.d_model {self.d_model}; "
                f"set backbone.d_head or take {nearest_divisor(self.d_model, self.n_heads)} heads"
            )
        elif self.positions == "rotary" and self.d_head % 2:
            found.append(f"backbone.positions rotary needs an even backbone.d_head, not {self.d_head}")
        if self.n_kv_heads > 0 and self.n_heads > 0 and self.n_heads % self.n_kv_heads:
            found.append(
                f"backbone.n_kv_heads {self.n_kv_heads} does not divide backbone.n_heads {self.n_heads}; "
                f"the nearest that does is {nearest_divisor(self.n_heads, self.n_kv_heads)}"
            )
        if self.positions == "sinusoidal" and self.d_model % 2:
            found.append(f"backbone.positions sinusoidal needs an even backbone.d_model, not {self.d_model}")
        if self.n_encoder_layers is not None and self.arrangement != "encoder_decoder":
            found.append(
                f"backbone.n_encoder_layers needs backbone.arrangement encoder_decoder, not {self.arrangement}"
            )
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

    def _attention_params(self, biases: bool) -> int:
        inner, inner_kv = self.n_heads * self.d_head, self.n_kv_heads * self.d_head
        weights = self.d_model * (inner + 2 * inner_kv) + inner * self.d_model
        return weights + (inner + 2 * inner_kv + self.d_model if biases else 0)

    def _feedforward_params(self, biases: bool) -> int:
        up = 2 if self.feedforward == "swiglu" else 1
        return (up + 1) * self.d_model * self.d_ff + (up * self.d_ff + self.d_model if biases else 0)

    def _stacks(self) -> list[tuple[int, int]]:
        """(blocks, attentions a block has) of each stack."""
        if self.arrangement == "encoder_decoder":
            return [(self.n_encoder_layers, 1), (self.n_layers, 2)]
        return [(self.n_layers, 1)]

    def _matrix_params(self, biases: bool = False) -> int:
        attention, feedforward = self._attention_params(biases), self._feedforward_params(biases)
        return sum(layers * (attentions * attention + feedforward) for layers, attentions in self._stacks())

    def num_params(self, embeddings: bool = True) -> int:
        """Parameters of the backbone; without ``embeddings`` (tokens, learned positions), of blocks and norms alone.

        Raises:
            ConfigError: the embedding is asked for and ``vocab_size`` is not known.
        """
        norms = sum(layers * (attentions + 1) for layers, attentions in self._stacks())
        norms += len(self._stacks()) if self.norm_placement == "pre" else 0
        total = self._matrix_params(self.bias) + norms * self._norm_params()
        if not embeddings:
            return total
        if self.vocab_size is None:
            raise ConfigError("backbone.vocab_size must be known to count the embedding")
        learned = self.max_length * self.d_model if self.positions == "learned" else 0
        return total + self.vocab_size * self.d_model + learned

    def flops_per_token(self, length: int) -> int:
        """Training FLOPs a token at sequence length T: ``6 N + 12 L H Dh T``.

        N counts the matrices of the blocks and the output head, not the input embedding, positions, norms and biases;
        attention is counted in full, also where it is causal. The convention of PaLM (Chowdhery et al. 2022,
        appendix B). In an encoder_decoder, for one target token and one source token of an equally long source; L is
        then the number of attentions, cross-attention included.
        """
        matrices = self._matrix_params() + (self.vocab_size or 0) * self.d_model
        attentions = sum(layers * each for layers, each in self._stacks())
        return 6 * matrices + 12 * attentions * self.n_heads * self.d_head * length
