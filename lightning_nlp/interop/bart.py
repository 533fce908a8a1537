"""BART (Lewis et al. 2020) and Marian (Junczys-Dowmunt et al. 2018; the Opus-MT models).

Traps: BART's tables of positions begin with two rows that no token uses; Marian's hold sines then cosines, which are
computed here; ``final_logits_bias`` is a buffer that is zero in most files. An output bias that is not zero is trained
here as any other. How transformers steers decoding (forced first and last tokens, forbidden ones) is not read.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.interop.family import ACTIVATIONS, Family, Settings, activation, named, require, require_equal
from lightning_nlp.interop.weights import State, Weight, linear, same, stacked

UNUSED = 2
"""Rows of BART's tables of positions before that of the first token."""
BIAS = "final_logits_bias"


def with_unused_rows(x: Tensor) -> Tensor:
    new = x.new_zeros(UNUSED + len(x), x.shape[1])
    new[UNUSED:] = x
    return new


class BART(Family):
    """``BartForConditionalGeneration``."""

    model_type: ClassVar[str] = "bart"
    architecture: ClassVar[str] = "BartForConditionalGeneration"
    task: ClassVar[str] = "SequenceToSequence"
    head: ClassVar[str] = "seq2seq"
    prefix: ClassVar[str] = "model."
    ignored: ClassVar[tuple[str, ...]] = (r"model\.(encoder|decoder)\.version", r"classification_head\..*")
    second_names: ClassVar[dict[str, str]] = {
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
        "lm_head.weight": "model.shared.weight",
    }
    told_by_weights: ClassVar[tuple[str, ...]] = ("output_bias",)
    widening: ClassVar[Settings] = {"bias": True, "qkv_bias": True}
    own: ClassVar[Settings] = {"positions": "learned", "embedding_norm": True}
    """Fields of ours in which the families of this file differ."""
    old: ClassVar[Settings] = {"normalize_embedding": True, "static_position_embeddings": False}
    """The same, as settings of old files say it."""

    def read(self, settings: Settings) -> Settings:
        require(
            settings,
            self.model_type,
            **self.old,
            normalize_before=False,
            add_final_layer_norm=False,
            tie_word_embeddings=True,
            share_encoder_decoder_embeddings=True,
        )
        require_equal(settings, self.model_type, "decoder_attention_heads", "encoder_attention_heads")
        require_equal(settings, self.model_type, "decoder_ffn_dim", "encoder_ffn_dim")
        require_equal(settings, self.model_type, "decoder_vocab_size", "vocab_size")
        return {
            "arrangement": "encoder_decoder",
            "vocab_size": settings["vocab_size"],
            "pad_id": settings.get("pad_token_id"),
            "decoder_start_id": settings.get("decoder_start_token_id"),
            "n_layers": settings["decoder_layers"],
            "n_encoder_layers": settings["encoder_layers"],
            "d_model": settings["d_model"],
            "n_heads": settings["encoder_attention_heads"],
            "d_ff": settings["encoder_ffn_dim"],
            "max_length": settings["max_position_embeddings"],
            **self.own,
            "scale_embeddings": settings.get("scale_embedding", False),
            "norm_placement": "post",
            "feedforward": activation({"activation_function": "gelu", **settings}, "activation_function", ACTIVATIONS),
            "bias": True,
            "dropout": settings.get("dropout", 0.1),
        }

    def write(self, config: TransformerConfig) -> Settings:
        return {
            "vocab_size": config.vocab_size,
            "d_model": config.d_model,
            "encoder_layers": config.n_encoder_layers,
            "decoder_layers": config.n_layers,
            "encoder_attention_heads": config.n_heads,
            "decoder_attention_heads": config.n_heads,
            "encoder_ffn_dim": config.d_ff,
            "decoder_ffn_dim": config.d_ff,
            "activation_function": named(ACTIVATIONS, config.feedforward),
            "max_position_embeddings": config.max_length,
            "scale_embedding": config.scale_embeddings,
            "dropout": config.dropout,
            "attention_dropout": config.dropout,
            "init_std": config.init_std,
            "pad_token_id": config.pad_id,
            "decoder_start_token_id": config.decoder_start_id,
            "forced_eos_token_id": None,
            "is_encoder_decoder": True,
        }

    def tidy(self, state: State, arguments: Settings) -> State:
        found = super().tidy(state, arguments)
        if BIAS in found and not found[BIAS].any():
            del found[BIAS]
        return found

    def adjust(self, arguments: Settings, state: State) -> Settings:
        return {**arguments, "output_bias": BIAS in state}

    def positions(self, stack: str) -> list[Weight]:
        """The part of the table before the first block of a stack."""
        ours, theirs = f"backbone.{stack}", f"model.{stack}"
        table = Weight(
            f"{ours}.positions.embedding.weight",
            (f"{theirs}.embed_positions.weight",),
            to_ours=lambda x: x[UNUSED:],
            to_theirs=with_unused_rows,
        )
        return [table, *linear(f"{ours}.embedding_norm", f"{theirs}.layernorm_embedding", True)]

    def weights(self, config: TransformerConfig) -> list[Weight]:
        table = [same("backbone.token_embedding.weight", "model.shared.weight")]
        if config.output_bias:
            table.append(
                Weight(self.output("bias"), (BIAS,), to_ours=lambda x: x.flatten(), to_theirs=lambda x: x[None])
            )
        for stack, layers in (("encoder", config.n_encoder_layers), ("decoder", config.n_layers)):
            table += self.positions(stack)
            for layer in range(layers):
                table += self.block(config.d_model, stack, layer)
        return table

    def block(self, width: int, stack: str, layer: int) -> list[Weight]:
        """The part of the table that belongs to one block."""
        ours, theirs = f"backbone.{stack}.layers.{layer}", f"model.{stack}.layers.{layer}"
        parts = [f"{theirs}.self_attn.{x}_proj" for x in "qkv"]
        table = list(stacked(f"{ours}.attention.query_key_value", parts, [width] * 3, True))
        names = {
            "attention.output": "self_attn.out_proj",
            "attention_norm": "self_attn_layer_norm",
            "feedforward.up": "fc1",
            "feedforward.down": "fc2",
            "feedforward_norm": "final_layer_norm",
        }
        if stack == "decoder":
            parts = [f"{theirs}.encoder_attn.{x}_proj" for x in "kv"]
            table += stacked(f"{ours}.cross_attention.key_value", parts, [width] * 2, True)
            names |= {
                "cross_attention.query": "encoder_attn.q_proj",
                "cross_attention.output": "encoder_attn.out_proj",
                "cross_attention_norm": "encoder_attn_layer_norm",
            }
        for mine, other in names.items():
            table += linear(f"{ours}.{mine}", f"{theirs}.{other}", True)
        return table


class Marian(BART):
    """``MarianMTModel``."""

    model_type: ClassVar[str] = "marian"
    architecture: ClassVar[str] = "MarianMTModel"
    ignored: ClassVar[tuple[str, ...]] = (r"model\.(encoder|decoder)\.embed_positions\.weight",)
    own: ClassVar[Settings] = {"positions": "sinusoidal", "sinusoid": "halves", "embedding_norm": False}
    old: ClassVar[Settings] = {"normalize_embedding": False, "static_position_embeddings": True}

    def positions(self, stack: str) -> list[Weight]:
        return []
