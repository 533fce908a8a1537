"""What cannot be built, said in one line that names both fields. Imports no torch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from lightning_nlp.errors import nearest

if TYPE_CHECKING:
    from lightning_nlp.backbone.config import TransformerConfig

COUNTS = (
    *("n_layers", "n_encoder_layers", "d_model", "n_heads", "n_kv_heads", "d_head", "d_ff", "vocab_size", "max_length"),
    *("relative_buckets", "relative_distance", "window", "full_attention_every", "global_tokens", "mup_base_width"),
)
NOT_NEGATIVE = ("pad_id", "decoder_start_id", "memory_length", "token_types", "position_shift")
ABOVE_ZERO = (
    *("rotary_base", "rotary_share", "norm_eps", "init_std", "output_scale"),
    *("attention_scale", "attention_softcap", "output_softcap"),
)

BELONGS: dict[str, tuple[str, Any]] = {
    "decoder_start_id": ("arrangement", "encoder_decoder"),
    "n_encoder_layers": ("arrangement", "encoder_decoder"),
    "sinusoid": ("positions", "sinusoidal"),
    "rotary_base": ("positions", "rotary"),
    "rotary_share": ("positions", "rotary"),
    "rotary_scaling": ("positions", "rotary"),
    "relative_buckets": ("positions", "relative"),
    "relative_distance": ("positions", "relative"),
    "mup_base_width": ("init", "mup"),
}
"""Fields that mean something only beside a value of another field."""


def problems(config: TransformerConfig) -> list[str]:
    """All mistakes of a configuration, each a phrase of its own; empty when there are none."""
    return [*wrong_values(config), *wrong_pairs(config)]


def nearest_divisor(number: int, wanted: int) -> int:
    """The divisor of ``number`` closest to ``wanted`` (the smaller of two), for messages."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - wanted), default=1)


def unknown_choices(value: Any, prefix: str) -> list[str]:
    """Fields of a dataclass annotated with a ``Literal`` whose value is not in it."""
    found = []
    for name, hint in get_type_hints(type(value)).items():
        if str(get_origin(hint)).endswith("Literal") and (chosen := getattr(value, name)) not in get_args(hint):
            known = f"{nearest(str(chosen), get_args(hint))} (known: {', '.join(get_args(hint))})"
            found.append(f"unknown {prefix}{name} '{chosen}'{known}")
    return found


def wrong_values(config: TransformerConfig) -> list[str]:
    """Mistakes that one field makes alone."""
    found = unknown_choices(config, "backbone.")
    for name in COUNTS:
        value = config.given.get(name, 1)  # what is derived from a wrong value is not a second mistake
        if value < 1:
            found.append(f"backbone.{name} must be at least 1, not {value}")
    for name in NOT_NEGATIVE:
        if (value := getattr(config, name)) is not None and value < 0:
            found.append(f"backbone.{name} must not be negative, not {value}")
    for name in ABOVE_ZERO:
        if (value := getattr(config, name)) is not None and not (value > 0 and math.isfinite(value)):
            found.append(f"backbone.{name} must be above 0, not {value}")
    if not 0 <= config.dropout < 1:
        found.append(f"backbone.dropout must be in [0, 1), not {config.dropout}")
    if config.rotary_share > 1:
        found.append(f"backbone.rotary_share must be at most 1, not {config.rotary_share}")
    if (scaling := config.rotary_scaling) is not None:
        found += unknown_choices(scaling, "backbone.rotary_scaling.")
        if not (scaling.factor >= 1 and math.isfinite(scaling.factor)):
            found.append(f"backbone.rotary_scaling.factor must be at least 1, not {scaling.factor}")
        if scaling.low_frequency >= scaling.high_frequency:
            found.append(
                f"backbone.rotary_scaling.low_frequency {scaling.low_frequency} must be below "
                f"rotary_scaling.high_frequency {scaling.high_frequency}"
            )
        if scaling.beta_slow >= scaling.beta_fast:
            found.append(
                f"backbone.rotary_scaling.beta_slow {scaling.beta_slow} must be below "
                f"rotary_scaling.beta_fast {scaling.beta_fast}"
            )
    return found


def wrong_pairs(config: TransformerConfig) -> list[str]:
    """Mistakes that two fields make together."""
    found = [
        f"backbone.{name} belongs to backbone.{other} {value}, but backbone.{other} is {getattr(config, other)}"
        for name, (other, value) in BELONGS.items()
        if name in config.given and getattr(config, other) != value
    ]
    return found + wrong_shapes(config) + wrong_attention(config) + wrong_block(config)


def wrong_shapes(config: TransformerConfig) -> list[str]:
    """Widths that do not go together."""
    found = []
    c = config
    if "d_head" not in c.given and c.n_heads > 0 and c.d_model > 0 and c.d_model % c.n_heads:
        found.append(
            f"backbone.n_heads {c.n_heads} does not divide backbone.d_model {c.d_model}; "
            f"set backbone.d_head or take {nearest_divisor(c.d_model, c.n_heads)} heads"
        )
    elif c.positions == "rotary" and c.d_head > 0 and 0 < c.rotary_share <= 1:
        if c.rotary_share == 1 and c.d_head % 2:
            found.append(f"backbone.positions rotary needs an even backbone.d_head, not {c.d_head}")
        elif c.rotary_width % 2 or c.rotary_width < 2:
            found.append(
                f"backbone.rotary_share {c.rotary_share} of backbone.d_head {c.d_head} is {c.rotary_width} dimensions: "
                "it must be an even number of them"
            )
    if c.n_kv_heads > 0 and c.n_heads > 0 and c.n_heads % c.n_kv_heads:
        found.append(
            f"backbone.n_kv_heads {c.n_kv_heads} does not divide backbone.n_heads {c.n_heads}; "
            f"the nearest that does is {nearest_divisor(c.n_heads, c.n_kv_heads)}"
        )
    if c.position_shift > 0 and c.positions not in ("learned", "sinusoidal"):
        found.append(f"backbone.position_shift needs positions learned or sinusoidal: {c.positions} have no origin")
    if c.positions == "learned" and c.position_shift >= c.max_length:
        found.append(f"backbone.position_shift {c.position_shift} must be less than max_length {c.max_length}")
    if c.positions == "sinusoidal" and c.d_model % 2:
        found.append(f"backbone.positions sinusoidal needs an even backbone.d_model, not {c.d_model}")
    if c.positions == "sinusoidal" and c.sinusoid == "fairseq" and c.d_model < 4:
        found.append(f"backbone.sinusoid fairseq needs a backbone.d_model of at least 4, not {c.d_model}")
    if c.positions == "relative":
        both_ways = c.arrangement != "decoder"
        least = 4 if both_ways else 2
        if c.relative_buckets < least or (both_ways and c.relative_buckets % 2):
            found.append(
                f"backbone.relative_buckets {c.relative_buckets} must be "
                f"{'an even number of ' if both_ways else ''}at least {least} with backbone.arrangement {c.arrangement}"
            )
        elif c.relative_distance <= (near := c.relative_buckets // (4 if both_ways else 2)):
            found.append(
                f"backbone.relative_distance {c.relative_distance} must be above the {near} distances that "
                f"backbone.relative_buckets {c.relative_buckets} tells apart one by one"
            )
    for name in ("pad_id", "decoder_start_id"):
        if (number := getattr(c, name)) is not None and c.vocab_size is not None and number >= c.vocab_size:
            found.append(f"backbone.{name} {number} is outside backbone.vocab_size {c.vocab_size}")
    return found


def wrong_attention(config: TransformerConfig) -> list[str]:
    """Attention patterns, scores and memories that do not go together."""
    found = []
    c = config
    for name in ("full_attention_every", "global_tokens"):
        if name in c.given and c.window is None:
            found.append(f"backbone.{name} needs backbone.window: without it every layer sees everything")
    if c.global_tokens and c.arrangement != "encoder":
        found.append(f"backbone.global_tokens needs backbone.arrangement encoder, not {c.arrangement}")
    if c.global_tokens and c.attention == "additive":
        found.append("backbone.global_tokens needs backbone.attention dot_product, not additive")
    if c.attention == "additive":
        if c.positions == "rotary":
            found.append(
                "backbone.attention additive does not go with backbone.positions rotary: "
                "only dot products of turned vectors depend on distances"
            )
        for name in ("attention_scale", "qk_norm"):
            if name in c.given:
                found.append(f"backbone.{name} belongs to backbone.attention dot_product, not additive")
    if c.memory_length > 0:
        if c.arrangement != "decoder":
            found.append(f"backbone.memory_length needs backbone.arrangement decoder, not {c.arrangement}")
        if c.positions in ("learned", "sinusoidal"):
            found.append(
                f"backbone.memory_length needs relative positions (rotary, alibi, relative, none), "
                f"not backbone.positions {c.positions}"
            )
    return found


def wrong_block(config: TransformerConfig) -> list[str]:
    """Blocks, norms and outputs that do not go together."""
    found = []
    c = config
    if c.parallel_residual and c.norm_placement != "pre":
        found.append(f"backbone.parallel_residual needs backbone.norm_placement pre, not {c.norm_placement}")
    if c.parallel_residual and c.arrangement == "encoder_decoder":
        found.append("backbone.parallel_residual does not go with backbone.arrangement encoder_decoder")
    if c.init == "mup" and c.mup_base_width is None:
        found.append("backbone.init mup needs backbone.mup_base_width: the width that was tuned")
    return found
