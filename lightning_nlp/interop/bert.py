"""BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019) and DistilBERT (Sanh et al. 2019) with their masked-LM heads.

Traps: norms come after each residual sum; the output matrix is the embedding, but its bias is its own; RoBERTa counts
positions from ``pad_token_id + 1``; norms of the first published files are called gamma and beta. Pooler and
next-sentence head are left out.
"""

from __future__ import annotations

import re
from typing import ClassVar

from torch import Tensor

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.interop.family import Family, Settings, require
from lightning_nlp.interop.weights import State, Weight, linear, same, stacked

OLD_NORM = re.compile(r"LayerNorm\.(gamma|beta)$")


class BERT(Family):
    """``BertForMaskedLM``."""

    model_type: ClassVar[str] = "bert"
    architecture: ClassVar[str] = "BertForMaskedLM"
    task: ClassVar[str] = "MaskedLM"
    head: ClassVar[str] = "mlm"
    prefix: ClassVar[str] = "bert."
    ignored: ClassVar[tuple[str, ...]] = (
        r"\w+\.pooler\..*",
        r"\w+\.embeddings\.(position_ids|token_type_ids)",
        r"cls\.seq_relationship\..*",
        r"(pre_)?classifier\..*",
        r"qa_outputs\..*",
    )
    second_names: ClassVar[dict[str, str]] = {
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    }
    widening: ClassVar[Settings] = {"bias": True, "qkv_bias": True, "output_bias": True}
    transform: ClassVar[tuple[str, str, str]] = (
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    )
    """Their names of the dense layer, the norm and the bias before and after the output matrix."""

    def first_position(self, pad_id: int | None) -> int:
        """Rows of the table of positions before that of the first token."""
        return 0

    def read(self, settings: Settings) -> Settings:
        require(
            settings,
            self.model_type,
            hidden_act="gelu",  # of the output layer too, where there is no other
            position_embedding_type="absolute",
            is_decoder=False,
            add_cross_attention=False,
            tie_word_embeddings=True,
        )
        pad_id = settings.get("pad_token_id")
        return {
            **ENCODER,
            "vocab_size": settings["vocab_size"],
            "pad_id": pad_id,
            "n_layers": settings["num_hidden_layers"],
            "d_model": settings["hidden_size"],
            "n_heads": settings["num_attention_heads"],
            "d_ff": settings["intermediate_size"],
            "max_length": settings["max_position_embeddings"] - self.first_position(pad_id),
            "norm_eps": settings.get("layer_norm_eps", 1e-12),
            "token_types": settings.get("type_vocab_size", 2),
            "dropout": settings.get("hidden_dropout_prob", 0.1),
        }

    def write(self, config: TransformerConfig) -> Settings:
        if not config.token_types:
            raise ConfigError(f"backbone.token_types must be at least 1 for a {self.model_type}")
        return {
            "vocab_size": config.vocab_size,
            "hidden_size": config.d_model,
            "num_hidden_layers": config.n_layers,
            "num_attention_heads": config.n_heads,
            "intermediate_size": config.d_ff,
            "hidden_act": "gelu",
            "max_position_embeddings": config.max_length + self.first_position(config.pad_id),
            "type_vocab_size": config.token_types,
            "pad_token_id": config.pad_id,
            "layer_norm_eps": config.norm_eps,
            "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.dropout,
            "initializer_range": config.init_std,
        }

    def tidy(self, state: State, arguments: Settings) -> State:
        modern = {"gamma": "LayerNorm.weight", "beta": "LayerNorm.bias"}
        renamed = {OLD_NORM.sub(lambda found: modern[found[1]], name): value for name, value in state.items()}
        return super().tidy(renamed, arguments)

    def embeddings(self, config: TransformerConfig) -> list[Weight]:
        """The part of the table that stands before the first block."""
        first = self.first_position(config.pad_id)

        def padded(x: Tensor) -> Tensor:
            new = x.new_zeros(first + len(x), x.shape[1])
            new[first:] = x
            return new

        ours, theirs = "backbone.encoder.positions.embedding.weight", "embeddings.position_embeddings.weight"
        table = [
            same("backbone.token_embedding.weight", f"{self.prefix}embeddings.word_embeddings.weight"),
            Weight(ours, (f"{self.prefix}{theirs}",), to_ours=lambda x: x[first:], to_theirs=padded),
            *linear("backbone.encoder.embedding_norm", f"{self.prefix}embeddings.LayerNorm", True),
        ]
        if config.token_types:
            types = f"{self.prefix}embeddings.token_type_embeddings.weight"
            table.append(same("backbone.type_embedding.weight", types))
        return table

    def output_layer(self) -> list[Weight]:
        """The part of the table that belongs to the head."""
        dense, norm, bias = self.transform
        return [
            *linear(self.output("transform.dense"), dense, True),
            *linear(self.output("transform.norm"), norm, True),
            same(self.output("bias"), bias),
        ]

    layers: ClassVar[str] = "encoder.layer"
    projections: ClassVar[tuple[str, str, str]] = ("attention.self.query", "attention.self.key", "attention.self.value")
    parts: ClassVar[dict[str, str]] = {
        "attention.output": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "feedforward.up": "intermediate.dense",
        "feedforward.down": "output.dense",
        "feedforward_norm": "output.LayerNorm",
    }

    def weights(self, config: TransformerConfig) -> list[Weight]:
        table = [*self.embeddings(config), *self.output_layer()]
        for layer in range(config.n_layers):
            ours, theirs = f"backbone.encoder.layers.{layer}", f"{self.prefix}{self.layers}.{layer}"
            fused = [f"{theirs}.{part}" for part in self.projections]
            table += stacked(f"{ours}.attention.query_key_value", fused, [config.d_model] * 3, True)
            for mine, other in self.parts.items():
                table += linear(f"{ours}.{mine}", f"{theirs}.{other}", True)
        return table


ENCODER: Settings = {
    "arrangement": "encoder",
    "positions": "learned",
    "norm_placement": "post",
    "embedding_norm": True,
    "feedforward": "gelu",
    "bias": True,
    "output_bias": True,
    "output_transform": True,
}
"""What all of them have in common."""


class RoBERTa(BERT):
    """``RobertaForMaskedLM``."""

    model_type: ClassVar[str] = "roberta"
    architecture: ClassVar[str] = "RobertaForMaskedLM"
    prefix: ClassVar[str] = "roberta."
    second_names: ClassVar[dict[str, str]] = {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }
    transform: ClassVar[tuple[str, str, str]] = ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")

    def first_position(self, pad_id: int | None) -> int:
        if pad_id is None:
            raise ConfigError("backbone.pad_id must be set: a roberta counts positions from it")
        return pad_id + 1


class DistilBERT(BERT):
    """``DistilBertForMaskedLM``: no kinds of tokens, and other names."""

    model_type: ClassVar[str] = "distilbert"
    architecture: ClassVar[str] = "DistilBertForMaskedLM"
    prefix: ClassVar[str] = "distilbert."
    second_names: ClassVar[dict[str, str]] = {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"}
    transform: ClassVar[tuple[str, str, str]] = ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias")
    layers: ClassVar[str] = "transformer.layer"
    projections: ClassVar[tuple[str, str, str]] = ("attention.q_lin", "attention.k_lin", "attention.v_lin")
    parts: ClassVar[dict[str, str]] = {
        "attention.output": "attention.out_lin",
        "attention_norm": "sa_layer_norm",
        "feedforward.up": "ffn.lin1",
        "feedforward.down": "ffn.lin2",
        "feedforward_norm": "output_layer_norm",
    }

    def read(self, settings: Settings) -> Settings:
        require(settings, self.model_type, activation="gelu", tie_word_embeddings=True)
        return {
            **ENCODER,
            "vocab_size": settings["vocab_size"],
            "pad_id": settings.get("pad_token_id"),
            "n_layers": settings["n_layers"],
            "d_model": settings["dim"],
            "n_heads": settings["n_heads"],
            "d_ff": settings["hidden_dim"],
            "max_length": settings["max_position_embeddings"],
            "norm_eps": 1e-12,
            "dropout": settings.get("dropout", 0.1),
        }

    def write(self, config: TransformerConfig) -> Settings:
        return {
            "vocab_size": config.vocab_size,
            "dim": config.d_model,
            "n_layers": config.n_layers,
            "n_heads": config.n_heads,
            "hidden_dim": config.d_ff,
            "activation": "gelu",
            "max_position_embeddings": config.max_length,
            "pad_token_id": config.pad_id,
            "dropout": config.dropout,
            "attention_dropout": config.dropout,
            "initializer_range": config.init_std,
        }
