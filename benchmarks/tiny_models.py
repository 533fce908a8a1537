"""Tiny random models of transformers, one or more a family: what imported and exported models are compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

VOCABULARY, WIDTH, LENGTH = 61, 24, 48
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
GROUPED = {**DECODER, "num_key_value_heads": 2}
ENCODER = {**DECODER, "pad_token_id": 0}
PAIR = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 40,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": LENGTH,
    "forced_eos_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
T5 = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 40,
    "num_layers": 3,
    "num_decoder_layers": 2,  # a deeper decoder breaks the cache of transformers 5.23
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 12,
    "decoder_start_token_id": 0,
    "eos_token_id": None,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
YARN = {"rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0, "original_max_position_embeddings": 12}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": 2, "n_head": 4, "n_positions": LENGTH}
DISTIL = {
    "vocab_size": VOCABULARY,
    "dim": WIDTH,
    "n_layers": 2,
    "n_heads": 4,
    "hidden_dim": 40,
    "max_position_embeddings": LENGTH,
    "pad_token_id": 0,
}
NO_ENDS = {"bos_token_id": None, "eos_token_id": None}

PEERS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2LMHeadModel", {**GPT2, **NO_ENDS}),
    "gpt2-untied": ("GPT2LMHeadModel", {**GPT2, **NO_ENDS, "n_inner": 36, "tie_word_embeddings": False}),
    "llama": ("LlamaForCausalLM", {**DECODER, "head_dim": 8}),
    "llama-grouped-tied": ("LlamaForCausalLM", {**GROUPED, "tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "llama-yarn": ("LlamaForCausalLM", {**GROUPED, "rope_parameters": YARN}),
    "mistral": ("MistralForCausalLM", {**GROUPED, "sliding_window": 5}),
    "qwen2": ("Qwen2ForCausalLM", {**GROUPED, "tie_word_embeddings": True}),
    "qwen2-window": (
        "Qwen2ForCausalLM",
        {**GROUPED, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3ForCausalLM", {**GROUPED, "head_dim": 8}),
    "gpt_neox": ("GPTNeoXForCausalLM", {**DECODER, "rope_parameters": {"partial_rotary_factor": 0.34}}),
    "gpt_neox-serial": (
        "GPTNeoXForCausalLM",
        {**DECODER, "use_parallel_residual": False, "rotary_pct": 1.0, "rotary_emb_base": 500.0},
    ),
    "bert": ("BertForMaskedLM", ENCODER),
    "roberta": ("RobertaForMaskedLM", {**ENCODER, "pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "distilbert": ("DistilBertForMaskedLM", DISTIL),
    "t5": ("T5ForConditionalGeneration", T5),
    "t5-v1.1": (
        "T5ForConditionalGeneration",
        {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    ),
    "bart": ("BartForConditionalGeneration", {**PAIR, "pad_token_id": 1, "decoder_start_token_id": 2}),
    "marian": (
        "MarianMTModel",
        {
            **PAIR,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
            "activation_function": "swish",
            "scale_embedding": True,
        },
    ),
}
"""A class of transformers and its settings."""
SEEDS = {"gpt2": 24, "gpt2-untied": 25, "t5": 10, "t5-v1.1": 23, "bart": 6, "marian": 22}
"""With which lively models do not repeat one token for ever in greedy decoding, as random models like to do."""


def make(name: str, lively: bool = False) -> Any:
    """A peer in evaluation mode, every parameter of it random: a bias that is zero would hide a wrong name.

    Args:
        lively: layers that add much, for greedy decoding; single precision then gives four digits, not six.
    """
    kind, settings = PEERS[name]
    architecture = getattr(transformers, kind)
    model = architecture(architecture.config_class(**settings))
    if name == "t5-v1.1":  # as its authors have it; transformers 5 begins with a tied one
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    randomize(model, SEEDS.get(name, 0), 2.5 if lively else 1.0)
    return model.eval()


@torch.no_grad()
def randomize(model: torch.nn.Module, seed: int, gain: float = 1.0) -> None:
    """Norms near 1, matrices that multiply sizes by ``gain``, embeddings smaller than that; nothing is 0."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in model.named_parameters():
        if not value.requires_grad:  # tables that are computed
            continue
        noise = torch.empty_like(value).normal_(generator=generator)
        if value.dim() == 1:
            is_norm = ("norm" in key.lower() or ".ln_" in key) and key.endswith("weight")
            value.copy_(0.1 * noise + is_norm)
        else:
            is_table = any(part in key for part in ("emb", "shared", "wte", "wpe"))
            value.copy_(noise * (0.35 if is_table else gain * value.shape[-1] ** -0.5))
    for key, value in model.named_buffers():
        if key == "final_logits_bias":
            value.normal_(generator=generator)


def sources(peer: Any) -> bool:
    """The peer has an encoder and a decoder."""
    return bool(peer.config.is_encoder_decoder)


def draw(rows: int, length: int, seed: int = 0) -> Tensor:
    """Tokens ``[rows, length]`` that are nothing special."""
    return torch.randint(5, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def ours(module: Any, tokens: Tensor, source: Tensor | None = None, **more: Any) -> Tensor:
    """Scores ``[B, T, V]`` of a task of ours."""
    if source is not None:
        more["source_tokens"] = source
    return module.head.output(module.backbone(tokens, **more), module.backbone.embedding_weight)


def theirs(peer: Any, tokens: Tensor, source: Tensor | None = None, **more: Any) -> Tensor:
    """Scores ``[B, T, V]`` of a peer."""
    if source is None:
        return peer(input_ids=tokens, **more).logits
    return peer(input_ids=source, decoder_input_ids=tokens, **more).logits


def gradients(model: Any, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Gradients, by the names that the weights have in a file."""
    model.zero_grad()
    loss().backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    if getattr(getattr(model, "config", None), "model_type", "") == "gpt_neox" and "lm_head.weight" in found:
        found["embed_out.weight"] = found.pop("lm_head.weight")
    return found
