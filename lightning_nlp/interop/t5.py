"""T5 (Raffel et al. 2020) and T5 v1.1 (gated, its output matrix its own), also Flan-T5.

Traps: scores are not divided by sqrt(d); each stack has one table of relative positions, kept in its first layer; with
the embedding as output matrix, hidden states are multiplied by ``d_model ** -0.5``. Whether the output matrix is the
embedding is seen in the weights: transformers 5 writes ``tie_word_embeddings: true`` for every T5, and says in
``scale_decoder_outputs`` what used to follow from it.
"""

from __future__ import annotations

from typing import ClassVar

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.interop.family import Family, Settings, activation, named
from lightning_nlp.interop.weights import State, Weight, linear, same, stacked

FEEDFORWARDS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
    "gated-gelu": "geglu_tanh",  # transformers reads this one as the approximation
    "gated-silu": "swiglu",
    "gated-relu": "reglu",
}


class T5(Family):
    """``T5ForConditionalGeneration``."""

    model_type: ClassVar[str] = "t5"
    architecture: ClassVar[str] = "T5ForConditionalGeneration"
    task: ClassVar[str] = "SequenceToSequence"
    head: ClassVar[str] = "seq2seq"
    ignored: ClassVar[tuple[str, ...]] = (r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\..*",)
    second_names: ClassVar[dict[str, str]] = {
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
    }
    output_matrix: ClassVar[str] = "lm_head.weight"

    def read(self, settings: Settings) -> Settings:
        tied = settings.get("tie_word_embeddings", True)
        scaled = settings.get("scale_decoder_outputs", tied)
        start = settings.get("decoder_start_token_id")
        return {
            "arrangement": "encoder_decoder",
            "vocab_size": settings["vocab_size"],
            "pad_id": settings.get("pad_token_id", 0),
            "decoder_start_id": settings.get("pad_token_id", 0) if start is None else start,
            "n_layers": settings.get("num_decoder_layers") or settings["num_layers"],
            "n_encoder_layers": settings["num_layers"],
            "d_model": settings["d_model"],
            "n_heads": settings["num_heads"],
            "d_head": settings["d_kv"],
            "d_ff": settings["d_ff"],
            "max_length": settings.get("n_positions", 512),
            "positions": "relative",
            "relative_buckets": settings.get("relative_attention_num_buckets", 32),
            "relative_distance": settings.get("relative_attention_max_distance", 128),
            "attention_scale": 1.0,
            "norm": "rmsnorm",
            "norm_eps": settings.get("layer_norm_epsilon", 1e-6),
            "feedforward": activation({"feed_forward_proj": "relu", **settings}, "feed_forward_proj", FEEDFORWARDS),
            "tie_embeddings": tied,
            "output_scale": settings["d_model"] ** -0.5 if scaled else 1.0,
            "dropout": settings.get("dropout_rate", 0.1),
        }

    def write(self, config: TransformerConfig) -> Settings:
        return {
            "vocab_size": config.vocab_size,
            "d_model": config.d_model,
            "d_kv": config.d_head,
            "d_ff": config.d_ff,
            "num_layers": config.n_encoder_layers,
            "num_decoder_layers": config.n_layers,
            "num_heads": config.n_heads,
            "n_positions": config.max_length,
            "relative_attention_num_buckets": config.relative_buckets,
            "relative_attention_max_distance": config.relative_distance,
            "feed_forward_proj": named(FEEDFORWARDS, config.feedforward),
            "layer_norm_epsilon": config.norm_eps,
            "dropout_rate": config.dropout,
            "pad_token_id": config.pad_id,
            "decoder_start_token_id": config.decoder_start_id,
            "is_encoder_decoder": True,
            "scale_decoder_outputs": config.output_scale != 1.0,
            "tie_word_embeddings": config.tie_embeddings,
        }

    def adjust(self, arguments: Settings, state: State) -> Settings:
        return {**arguments, "tie_embeddings": self.output_matrix not in state}

    def weights(self, config: TransformerConfig) -> list[Weight]:
        table = [same("backbone.token_embedding.weight", "shared.weight")]
        if not config.tie_embeddings:
            table.append(same(self.output("matrix.weight"), self.output_matrix))
        for stack, layers in (("encoder", config.n_encoder_layers), ("decoder", config.n_layers)):
            first = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            table.append(same(f"backbone.{stack}.positions.embedding.weight", first))
            table += linear(f"backbone.{stack}.final_norm", f"{stack}.final_layer_norm", False)
            for layer in range(layers):
                table += self.block(config, stack, layer)
        return table

    def block(self, config: TransformerConfig, stack: str, layer: int) -> list[Weight]:
        """The part of the table that belongs to one block."""
        ours, theirs = f"backbone.{stack}.layers.{layer}", f"{stack}.block.{layer}.layer"
        inner = config.n_heads * config.d_head
        attention = f"{theirs}.0.SelfAttention"
        table = [
            *linear(f"{ours}.attention_norm", f"{theirs}.0.layer_norm", False),
            *stacked(f"{ours}.attention.query_key_value", [f"{attention}.{x}" for x in "qkv"], [inner] * 3, False),
            *linear(f"{ours}.attention.output", f"{attention}.o", False),
        ]
        last = 1
        if stack == "decoder":
            last, cross = 2, f"{theirs}.1.EncDecAttention"
            table += linear(f"{ours}.cross_attention_norm", f"{theirs}.1.layer_norm", False)
            table += linear(f"{ours}.cross_attention.query", f"{cross}.q", False)
            table += stacked(f"{ours}.cross_attention.key_value", [f"{cross}.{x}" for x in "kv"], [inner] * 2, False)
            table += linear(f"{ours}.cross_attention.output", f"{cross}.o", False)
        table += linear(f"{ours}.feedforward_norm", f"{theirs}.{last}.layer_norm", False)
        parts = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if config.gated else {"up": "wi", "down": "wo"}
        for mine, other in parts.items():
            table += linear(f"{ours}.feedforward.{mine}", f"{theirs}.{last}.DenseReluDense.{other}", False)
        return table
