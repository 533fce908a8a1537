"""GPT-NeoX (Black et al. 2022), which is also Pythia (Biderman et al. 2023).

Traps: queries, keys and values are fused head by head; the share of a head that rotary positions turn and their base
have had three spellings.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.interop.family import ACTIVATIONS, Family, Settings, activation, named, require
from lightning_nlp.interop.llama import read_rotary, write_rotary
from lightning_nlp.interop.weights import Weight, linear, same


def by_head(ours: str, theirs: str, heads: int) -> Weight:
    """A fused projection, ``[3, H, Dh, ..]`` here and ``[H, 3, Dh, ..]`` there."""

    def to_ours(x: Tensor) -> Tensor:
        return x.unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)

    def to_theirs(x: Tensor) -> Tensor:
        return x.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)

    return Weight(ours, (theirs,), to_ours=to_ours, to_theirs=to_theirs)


class GPTNeoX(Family):
    """``GPTNeoXForCausalLM``."""

    model_type: ClassVar[str] = "gpt_neox"
    architecture: ClassVar[str] = "GPTNeoXForCausalLM"
    task: ClassVar[str] = "CausalLM"
    head: ClassVar[str] = "lm"
    prefix: ClassVar[str] = "gpt_neox."
    ignored: ClassVar[tuple[str, ...]] = (
        r"gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",
        r"score\.weight",
    )
    second_names: ClassVar[dict[str, str]] = {"embed_out.weight": "gpt_neox.embed_in.weight"}
    output_matrix: ClassVar[str] = "embed_out.weight"
    widening: ClassVar[Settings] = {"bias": True, "qkv_bias": True}

    def read(self, settings: Settings) -> Settings:
        require(settings, self.model_type, attention_bias=True)
        given = settings.get("rope_parameters") or {}
        share = given.get("partial_rotary_factor", settings.get("rotary_pct", 0.25))
        base = settings.get("rope_theta", settings.get("rotary_emb_base", 10000.0))
        return {
            "arrangement": "decoder",
            "vocab_size": settings["vocab_size"],
            "n_layers": settings["num_hidden_layers"],
            "d_model": settings["hidden_size"],
            "n_heads": settings["num_attention_heads"],
            "d_ff": settings["intermediate_size"],
            "max_length": settings["max_position_embeddings"],
            "positions": "rotary",
            "rotary_share": share,
            **read_rotary({**settings, "rope_theta": base}),
            "norm_eps": settings.get("layer_norm_eps", 1e-5),
            "parallel_residual": settings.get("use_parallel_residual", True),
            "feedforward": activation({"hidden_act": "gelu", **settings}, "hidden_act", ACTIVATIONS),
            "bias": True,
            "tie_embeddings": settings.get("tie_word_embeddings", False),
            "dropout": settings.get("hidden_dropout", 0.0),
        }

    def write(self, config: TransformerConfig) -> Settings:
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.d_model,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "intermediate_size": config.d_ff,
            "hidden_act": named(ACTIVATIONS, config.feedforward),
            "max_position_embeddings": config.max_length,
            "rope_parameters": {**write_rotary(config), "partial_rotary_factor": config.rotary_share},
            "layer_norm_eps": config.norm_eps,
            "use_parallel_residual": config.parallel_residual,
            "hidden_dropout": config.dropout,
            "attention_dropout": config.dropout,
            "initializer_range": config.init_std,
            "tie_word_embeddings": config.tie_embeddings,
        }

    def weights(self, config: TransformerConfig) -> list[Weight]:
        table = [
            same("backbone.token_embedding.weight", "gpt_neox.embed_in.weight"),
            *linear("backbone.decoder.final_norm", "gpt_neox.final_layer_norm", True),
        ]
        if not config.tie_embeddings:
            table.append(same(self.output("matrix.weight"), self.output_matrix))
        for layer in range(config.n_layers):
            ours, theirs = f"backbone.decoder.layers.{layer}", f"gpt_neox.layers.{layer}"
            for part in ("weight", "bias"):
                fused = f"{ours}.attention.query_key_value.{part}", f"{theirs}.attention.query_key_value.{part}"
                table.append(by_head(*fused, config.n_heads))
            for mine, other in (
                ("attention_norm", "input_layernorm"),
                ("feedforward_norm", "post_attention_layernorm"),
                ("attention.output", "attention.dense"),
                ("feedforward.up", "mlp.dense_h_to_4h"),
                ("feedforward.down", "mlp.dense_4h_to_h"),
            ):
                table += linear(f"{ours}.{mine}", f"{theirs}.{other}", True)
        return table
