"""What we make ourselves, written for transformers; and which family can say what."""

from __future__ import annotations

import pytest
import tokenizers
import torch
import transformers
from tokenizers import processors

from benchmarks import tiny_models
from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.config import RotaryScaling, TransformerConfig
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.interop.convert import export_model, export_safetensors, family_for, registry, with_ends_added
from lightning_nlp.interop.folder import read_weights

SIZE = {"vocab_size": 53, "n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 24, "max_length": 32}
LLAMA = {**SIZE, "norm": "rmsnorm", "feedforward": "swiglu"}
ENCODER = {
    **SIZE,
    "arrangement": "encoder",
    "positions": "learned",
    "norm_placement": "post",
    "embedding_norm": True,
    "bias": True,
    "output_bias": True,
    "output_transform": True,
    "pad_id": 0,
}
PAIR = {**SIZE, "arrangement": "encoder_decoder", "n_encoder_layers": 3, "pad_id": 0, "decoder_start_id": 1}
T5 = {**PAIR, "positions": "relative", "attention_scale": 1.0, "norm": "rmsnorm", "feedforward": "relu"}
POST = {**PAIR, "norm_placement": "post", "bias": True}

OURS = {
    "gpt2": ("CausalLM", {**SIZE, "positions": "learned", "bias": True, "feedforward": "relu"}),
    "llama": ("CausalLM", {**LLAMA, "n_kv_heads": 1, "d_head": 12, "rotary_scaling": RotaryScaling(kind="linear", factor=2.0)}),
    "mistral": ("CausalLM", {**LLAMA, "window": 4}),
    "qwen2": ("CausalLM", {**LLAMA, "qkv_bias": True, "window": 4}),
    "qwen3": ("CausalLM", {**LLAMA, "qk_norm": True}),
    "gpt_neox": ("CausalLM", {**SIZE, "bias": True, "rotary_share": 0.5, "parallel_residual": True}),
    "bert": ("MaskedLM", {**ENCODER, "token_types": 3}),
    "roberta": ("MaskedLM", {**ENCODER, "token_types": 1}),
    "distilbert": ("MaskedLM", {**ENCODER, "norm_eps": 1e-12}),
    "t5": ("SequenceToSequence", {**T5, "output_scale": 0.25}),
    "bart": ("SequenceToSequence", {**POST, "positions": "learned", "embedding_norm": True, "output_bias": True}),
    "marian": ("SequenceToSequence", {**POST, "positions": "sinusoidal", "sinusoid": "halves", "feedforward": "silu"}),
}  # fmt: skip


def fresh(task, settings):
    """One of our models, its parameters random."""
    torch.manual_seed(0)
    module = registry.load(registry.TASKS, task)(backbone=TransformerConfig(**settings))
    module.configure_model()
    tiny_models.randomize(module, seed=1)
    return module.eval()


def test_every_family_is_here():
    assert OURS.keys() == registry.FAMILIES.keys()


@pytest.mark.parametrize("name", OURS)
@torch.no_grad()
def test_our_own_configuration_in_transformers(name, tmp_path):
    module = fresh(*OURS[name])
    family = export_model(module, tmp_path / "out", name)
    peer, loading = getattr(transformers, family.architecture).from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(loading.values()), loading
    tokens = tiny_models.draw(2, 20) % SIZE["vocab_size"]
    source = tiny_models.draw(2, 15, seed=1) % SIZE["vocab_size"] if tiny_models.sources(peer) else None
    wanted = tiny_models.theirs(peer, tokens.clamp(min=2), source)
    torch.testing.assert_close(tiny_models.ours(module, tokens.clamp(min=2), source), wanted, rtol=0.0, atol=1e-5)


@torch.no_grad()
def test_lora_is_merged_and_bottlenecks_are_refused(tmp_path):
    torch.manual_seed(0)
    for kind in ("lora", "bottleneck"):
        module = registry.load(registry.TASKS, "CausalLM")(TransformerConfig(**LLAMA), adapter=AdapterConfig(kind=kind))
        module.configure_model()
        tiny_models.randomize(module, seed=1)
        if kind == "bottleneck":
            with pytest.raises(ConfigError, match="bottleneck cannot be merged"):
                export_model(module.eval(), tmp_path / kind)
            continue
        family = export_model(module.eval(), tmp_path / kind)
        peer = getattr(transformers, family.architecture).from_pretrained(tmp_path / kind)
        tokens = tiny_models.draw(2, 20) % SIZE["vocab_size"]
        found = tiny_models.ours(module, tokens)
        torch.testing.assert_close(found, tiny_models.theirs(peer, tokens), rtol=0.0, atol=1e-5)
    assert not (tmp_path / "bottleneck").exists()


@torch.no_grad()
def test_missing_biases_are_written_as_zeros(tmp_path):
    """Our default decoder, which has none, is a GPT-NeoX; with learned positions, a GPT-2."""
    for name, positions in (("gpt_neox", "rotary"), ("gpt2", "learned")):
        module = fresh("CausalLM", {**SIZE, "positions": positions})
        assert not any(key.endswith("bias") for key in module.state_dict())
        family = export_model(module, tmp_path / name)
        assert family.model_type == name
        peer = getattr(transformers, family.architecture).from_pretrained(tmp_path / name)
        tokens = tiny_models.draw(2, 20) % SIZE["vocab_size"]
        torch.testing.assert_close(
            tiny_models.ours(module, tokens), tiny_models.theirs(peer, tokens), rtol=0.0, atol=1e-5
        )


@pytest.mark.parametrize("changes", [{"tie_embeddings": True}, {"tie_embeddings": False}], ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.25])
@torch.no_grad()
def test_every_output_of_a_t5(changes, scale, tmp_path):
    """Embedding or own matrix, scaled or not: transformers 5 reads each as it is."""
    module = fresh("SequenceToSequence", {**T5, **changes, "output_scale": scale, "feedforward": "geglu_tanh"})
    export_model(module, tmp_path / "out")
    peer = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "out")
    tokens, source = tiny_models.draw(2, 9) % 53, tiny_models.draw(2, 8, seed=1) % 53
    wanted = tiny_models.theirs(peer, tokens, source)
    torch.testing.assert_close(tiny_models.ours(module, tokens, source), wanted, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("name", OURS)
def test_the_first_family_that_fits(name):
    """Not always the one in mind: a RoBERTa is a BERT whose positions are counted otherwise."""
    task, settings = OURS[name]
    chosen = family_for(TransformerConfig(**settings), task, None).model_type
    assert chosen == {"roberta": "bert"}.get(name, name)


@pytest.mark.parametrize(
    ("task", "settings", "wanted", "message"),
    [
        ("CausalLM", {**SIZE, "positions": "alibi"}, None, "no Hugging Face family fits; nearest: gpt2 cannot say backbone.positions 'alibi'$"),
        ("CausalLM", {**LLAMA, "attention_softcap": 5.0}, None, "llama cannot say backbone.attention_softcap 5.0"),
        ("CausalLM", LLAMA, "gpt2", "gpt2 cannot say backbone.positions 'rotary', .*norm 'rmsnorm'"),
        ("CausalLM", LLAMA, "lama", "unknown family 'lama'; did you mean 'llama'"),
        ("CausalLM", LLAMA, "t5", "no Hugging Face family fits this CausalLM: 't5' is a SequenceToSequence"),
        ("CausalLM", {**OURS["gpt2"][1], "d_head": 4}, "gpt2", "gpt2 cannot say backbone.d_head 4"),
        ("MaskedLM", {**ENCODER, "feedforward": "silu"}, "bert", "token_types must be at least 1 for a bert"),
        ("MaskedLM", {**ENCODER, "token_types": 1, "feedforward": "silu"}, "bert", "bert cannot say backbone.feedforward 'silu'"),
        ("MaskedLM", {**ENCODER, "token_types": 1, "pad_id": None}, "roberta", "backbone.pad_id must be set: a roberta"),
        ("MaskedLM", ENCODER, "distilbert", "distilbert cannot say backbone.norm_eps 1e-05"),
        ("SequenceToSequence", {**T5, "output_scale": 0.3}, None, "t5 cannot say backbone.output_scale 0.3"),
        ("SequenceToSequence", {**T5, "feedforward": "geglu"}, "t5", "t5 cannot say backbone.feedforward 'geglu'"),
        ("SequenceToSequence", {**OURS["marian"][1], "sinusoid": "fairseq"}, None, "marian cannot say backbone.sinusoid 'fairseq'"),
    ],
)  # fmt: skip
def test_what_no_family_can_say(task, settings, wanted, message):
    with pytest.raises(ConfigError, match=message):
        family_for(TransformerConfig(**settings), task, wanted)


@pytest.mark.parametrize(
    ("arrangement", "special", "wanted"),
    [
        ("decoder", True, [1, 101, 102]),
        ("encoder", True, [1, 101, 102, 2]),
        ("encoder_decoder", True, [101, 102, 2]),
        ("decoder", False, [97, 98]),
    ],
)
def test_exported_tokenizers_add_what_our_tasks_add(arrangement, special, wanted):
    """transformers asks the tokenizer for start and end tokens; our tasks add them by themselves."""
    tokenizer = Tokenizer.train([], TokenizerConfig(kind="byte", special_tokens=special))
    ends = with_ends_added(tokenizer, TransformerConfig(arrangement=arrangement, vocab_size=300))
    assert tokenizers.Tokenizer.from_str(ends).encode("ab").ids == wanted
    assert tokenizer.backend.post_processor is None


def test_exported_tokenizers_keep_rules_of_their_own():
    tokenizer = Tokenizer.train([], TokenizerConfig(kind="byte"))
    tokenizer.backend.post_processor = processors.ByteLevel(trim_offsets=False)
    kept = tokenizers.Tokenizer.from_str(with_ends_added(tokenizer, TransformerConfig(vocab_size=300)))
    assert kept.encode("ab").ids == [101, 102]


def test_outputs_are_not_written_over(tmp_path):
    module = fresh(*OURS["llama"])
    (tmp_path / "note.txt").write_text("mine")
    for write in (export_model, export_safetensors):
        with pytest.raises(ConfigError, match="exists already"):
            write(module, tmp_path)
        with pytest.raises(ConfigError, match="exists already"):
            write(module, tmp_path / "note.txt")
    (tmp_path / "empty").mkdir()
    export_safetensors(module, tmp_path / "empty")
    assert read_weights(tmp_path / "empty").keys() == module.state_dict().keys()
