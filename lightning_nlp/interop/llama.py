"""Llama 1 to 3 (Touvron et al. 2023) and its near relatives Mistral, Qwen 2 and Qwen 3.

Traps: the base of rotary positions and their scaling moved into the dictionary ``rope_parameters``; a Qwen's window is
only meant when ``use_sliding_window`` says so; weights of tied models have no ``lm_head``.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from lightning_nlp.backbone.config import RotaryScaling, TransformerConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.interop.family import Family, Settings, require
from lightning_nlp.interop.weights import Weight, linear, same, stacked


def read_rotary(settings: Settings) -> Settings:
    """Base and scaling of rotary positions, from both spellings.

    Raises:
        ConfigError: a kind of scaling that is not here.
    """
    given: Settings = settings.get("rope_parameters") or {}
    scaling: Settings = {**(settings.get("rope_scaling") or {}), **given}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if any(isinstance(value, dict) for value in scaling.values()):
        raise ConfigError("config.json: rope_parameters that differ between layers are not supported")
    base = {"rope_theta": 10000.0, **settings, **scaling}["rope_theta"]
    found: Settings = {"rotary_base": float(base)}
    if kind == "default":
        return found
    length = scaling.get("original_max_position_embeddings", settings.get("max_position_embeddings"))
    if kind == "linear":
        more: Settings = {}
    elif kind == "llama3":
        more = {"low_frequency": scaling["low_freq_factor"], "high_frequency": scaling["high_freq_factor"]}
    elif kind == "yarn":
        require(scaling, "yarn-scaled", truncate=True, mscale=None, mscale_all_dim=None)
        more = {"beta_fast": scaling.get("beta_fast") or 32.0, "beta_slow": scaling.get("beta_slow") or 1.0}
        more["attention_factor"] = scaling.get("attention_factor")
    else:
        raise ConfigError(f"config.json: rope type {kind!r} is not supported (known: default, linear, llama3, yarn)")
    if kind != "linear":
        more["original_length"] = length
    return {**found, "rotary_scaling": asdict(RotaryScaling(kind=kind, factor=float(scaling["factor"]), **more))}


def write_rotary(config: TransformerConfig) -> Settings:
    """``rope_parameters`` of a configuration."""
    found: Settings = {"rope_theta": config.rotary_base, "rope_type": "default"}
    scaling = config.rotary_scaling
    if scaling is None:
        return found
    found |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind != "linear":
        found["original_max_position_embeddings"] = scaling.original_length
    if scaling.kind == "llama3":
        found |= {"low_freq_factor": scaling.low_frequency, "high_freq_factor": scaling.high_frequency}
    if scaling.kind == "yarn":
        found |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor is not None:
            found["attention_factor"] = scaling.attention_factor
    return found


class Llama(Family):
    """``LlamaForCausalLM``."""

    model_type: ClassVar[str] = "llama"
    architecture: ClassVar[str] = "LlamaForCausalLM"
    task: ClassVar[str] = "CausalLM"
    head: ClassVar[str] = "lm"
    prefix: ClassVar[str] = "model."
    ignored: ClassVar[tuple[str, ...]] = (r".*rotary_emb\.inv_freq", r"score\.weight")
    second_names: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}
    output_matrix: ClassVar[str] = "lm_head.weight"
    qkv_bias: ClassVar[bool] = False
    qk_norm: ClassVar[bool] = False

    def read(self, settings: Settings) -> Settings:
        require(settings, self.model_type, hidden_act="silu", attention_bias=False, mlp_bias=False)
        return {
            "arrangement": "decoder",
            "vocab_size": settings["vocab_size"],
            "n_layers": settings["num_hidden_layers"],
            "d_model": settings["hidden_size"],
            "n_heads": settings["num_attention_heads"],
            "n_kv_heads": settings.get("num_key_value_heads") or settings["num_attention_heads"],
            "d_head": settings.get("head_dim") or settings["hidden_size"] // settings["num_attention_heads"],
            "d_ff": settings["intermediate_size"],
            "max_length": settings["max_position_embeddings"],
            "positions": "rotary",
            **read_rotary(settings),
            "norm": "rmsnorm",
            "norm_eps": settings.get("rms_norm_eps", 1e-6),
            "feedforward": "swiglu",
            "qkv_bias": self.qkv_bias,
            "qk_norm": self.qk_norm,
            "tie_embeddings": settings.get("tie_word_embeddings", False),
            **self.read_window(settings),
        }

    def read_window(self, settings: Settings) -> Settings:
        """Fields of a window; a Llama has none."""
        return {}

    def write(self, config: TransformerConfig) -> Settings:
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.d_model,
            "intermediate_size": config.d_ff,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "num_key_value_heads": config.n_kv_heads,
            "head_dim": config.d_head,
            "hidden_act": "silu",
            "max_position_embeddings": config.max_length,
            "rope_parameters": write_rotary(config),
            "rms_norm_eps": config.norm_eps,
            "initializer_range": config.init_std,
            "tie_word_embeddings": config.tie_embeddings,
            **self.write_window(config),
        }

    def write_window(self, config: TransformerConfig) -> Settings:
        return {}

    def weights(self, config: TransformerConfig) -> list[Weight]:
        table = [
            same("backbone.token_embedding.weight", "model.embed_tokens.weight"),
            same("backbone.decoder.final_norm.weight", "model.norm.weight"),
        ]
        if not config.tie_embeddings:
            table.append(same(self.output("matrix.weight"), self.output_matrix))
        inner, inner_kv = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        for layer in range(config.n_layers):
            ours, theirs = f"backbone.decoder.layers.{layer}", f"model.layers.{layer}"
            table += linear(f"{ours}.attention_norm", f"{theirs}.input_layernorm", False)
            table += linear(f"{ours}.feedforward_norm", f"{theirs}.post_attention_layernorm", False)
            parts = [f"{theirs}.self_attn.{part}_proj" for part in "qkv"]
            sizes = inner, inner_kv, inner_kv
            table += stacked(f"{ours}.attention.query_key_value", parts, sizes, self.qkv_bias)
            table += linear(f"{ours}.attention.output", f"{theirs}.self_attn.o_proj", False)
            if self.qk_norm:
                table += linear(f"{ours}.attention.query_norm", f"{theirs}.self_attn.q_norm", False)
                table += linear(f"{ours}.attention.key_norm", f"{theirs}.self_attn.k_norm", False)
            for part in ("gate", "up", "down"):
                table += linear(f"{ours}.feedforward.{part}", f"{theirs}.mlp.{part}_proj", False)
        return table


class Mistral(Llama):
    """``MistralForCausalLM``: a Llama with a window."""

    model_type: ClassVar[str] = "mistral"
    architecture: ClassVar[str] = "MistralForCausalLM"

    def read_window(self, settings: Settings) -> Settings:
        return {"window": settings.get("sliding_window")}

    def write_window(self, config: TransformerConfig) -> Settings:
        return {"sliding_window": config.window}


class Qwen2(Llama):
    """``Qwen2ForCausalLM``: a Llama with biases of queries, keys and values."""

    model_type: ClassVar[str] = "qwen2"
    architecture: ClassVar[str] = "Qwen2ForCausalLM"
    qkv_bias: ClassVar[bool] = True

    def read_window(self, settings: Settings) -> Settings:
        if not settings.get("use_sliding_window"):
            return {}
        first, layers = settings.get("max_window_layers", 28), settings["num_hidden_layers"]
        derived = ["sliding_attention" if layer >= first else "full_attention" for layer in range(layers)]
        kinds = set(settings.get("layer_types") or derived)
        if len(kinds) > 1:
            raise ConfigError(
                f"config.json of a {self.model_type} model: a window in some layers only "
                f"(max_window_layers {first} of {layers}, or layer_types) is not supported"
            )
        return {"window": settings.get("sliding_window")} if kinds == {"sliding_attention"} else {}

    def write_window(self, config: TransformerConfig) -> Settings:
        windowed: dict[str, Any] = {"sliding_window": config.window, "max_window_layers": 0}
        return {"use_sliding_window": config.window is not None, **(windowed if config.window else {})}


class Qwen3(Qwen2):
    """``Qwen3ForCausalLM``: normalised queries and keys instead of biases."""

    model_type: ClassVar[str] = "qwen3"
    architecture: ClassVar[str] = "Qwen3ForCausalLM"
    qkv_bias: ClassVar[bool] = False
    qk_norm: ClassVar[bool] = True
