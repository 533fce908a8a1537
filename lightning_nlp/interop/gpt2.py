"""GPT-2 (Radford et al. 2019). Trap: its linear layers are stored as ``[in, out]``."""

from __future__ import annotations

from typing import ClassVar

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.interop.family import ACTIVATIONS, Family, Settings, activation, named, require
from lightning_nlp.interop.weights import Weight, linear, same, transposed


class GPT2(Family):
    """``GPT2LMHeadModel``."""

    model_type: ClassVar[str] = "gpt2"
    architecture: ClassVar[str] = "GPT2LMHeadModel"
    task: ClassVar[str] = "CausalLM"
    head: ClassVar[str] = "lm"
    prefix: ClassVar[str] = "transformer."
    ignored: ClassVar[tuple[str, ...]] = (r"transformer\.h\.\d+\.attn\.(masked_)?bias", r"score\.weight")
    second_names: ClassVar[dict[str, str]] = {"lm_head.weight": "transformer.wte.weight"}
    output_matrix: ClassVar[str] = "lm_head.weight"
    widening: ClassVar[Settings] = {"bias": True, "qkv_bias": True}

    def read(self, settings: Settings) -> Settings:
        require(
            settings,
            self.model_type,
            scale_attn_weights=True,
            scale_attn_by_inverse_layer_idx=False,
            add_cross_attention=False,
        )
        return {
            "arrangement": "decoder",
            "vocab_size": settings["vocab_size"],
            "n_layers": settings["n_layer"],
            "d_model": settings["n_embd"],
            "n_heads": settings["n_head"],
            "d_ff": settings.get("n_inner") or 4 * settings["n_embd"],
            "max_length": settings["n_positions"],
            "positions": "learned",
            "norm_eps": settings.get("layer_norm_epsilon", 1e-5),
            "feedforward": activation(
                {"activation_function": "gelu_new", **settings}, "activation_function", ACTIVATIONS
            ),
            "bias": True,
            "tie_embeddings": settings.get("tie_word_embeddings", True),
            "dropout": settings.get("resid_pdrop", 0.1),
        }

    def write(self, config: TransformerConfig) -> Settings:
        return {
            "vocab_size": config.vocab_size,
            "n_positions": config.max_length,
            "n_embd": config.d_model,
            "n_layer": config.n_layers,
            "n_head": config.n_heads,
            "n_inner": config.d_ff,
            "activation_function": named(ACTIVATIONS, config.feedforward),
            "layer_norm_epsilon": config.norm_eps,
            "resid_pdrop": config.dropout,
            "embd_pdrop": config.dropout,
            "attn_pdrop": config.dropout,
            "initializer_range": config.init_std,
            "tie_word_embeddings": config.tie_embeddings,
        }

    def weights(self, config: TransformerConfig) -> list[Weight]:
        table = [
            same("backbone.token_embedding.weight", "transformer.wte.weight"),
            same("backbone.decoder.positions.embedding.weight", "transformer.wpe.weight"),
            *linear("backbone.decoder.final_norm", "transformer.ln_f", True),
        ]
        if not config.tie_embeddings:
            table.append(same(self.output("matrix.weight"), self.output_matrix))
        for layer in range(config.n_layers):
            ours, theirs = f"backbone.decoder.layers.{layer}", f"transformer.h.{layer}"
            table += linear(f"{ours}.attention_norm", f"{theirs}.ln_1", True)
            table += linear(f"{ours}.feedforward_norm", f"{theirs}.ln_2", True)
            for mine, other in (
                ("attention.query_key_value", "attn.c_attn"),
                ("attention.output", "attn.c_proj"),
                ("feedforward.up", "mlp.c_fc"),
                ("feedforward.down", "mlp.c_proj"),
            ):
                table.append(transposed(f"{ours}.{mine}.weight", f"{theirs}.{other}.weight"))
                table.append(same(f"{ours}.{mine}.bias", f"{theirs}.{other}.bias"))
        return table
