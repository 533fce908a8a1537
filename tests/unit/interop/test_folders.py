"""Folders as they really are: old names, second names, shards, pickles, bare models; and broken in every way."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

import lightning_nlp
from benchmarks import tiny_models
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.interop.convert import export_model, import_model, import_run, read
from lightning_nlp.loading import load

CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture
def folder(pair_of, tmp_path):
    """A copy of the folder of a peer, to be changed."""

    def get(name):
        return shutil.copytree(pair_of(name).folder, tmp_path / name)

    return get


def change(folder, **settings):
    """Settings in ``config.json``; None as a text takes one away."""
    file = folder / "config.json"
    values = {**json.loads(file.read_text()), **settings}
    file.write_text(json.dumps({key: value for key, value in values.items() if value != "absent"}))


def rewrite(folder, function):
    """The weights, changed by a function of the dictionary."""
    file = folder / "model.safetensors"
    state = load_file(file)
    save_file({name: value.contiguous().clone() for name, value in function(state).items()}, file)


def same_scores(folder, architecture, tokens=None, source=None):
    tokens = tiny_models.draw(2, 11) if tokens is None else tokens
    wanted = architecture.from_pretrained(folder).eval()
    with torch.no_grad():
        found = tiny_models.ours(import_model(folder), tokens, source)
        torch.testing.assert_close(found, tiny_models.theirs(wanted, tokens, source), **CLOSE)


# Weights as others write them -------------------------------------------------------------------------------------


def test_heads_that_are_left_out_are_listed(tmp_path, capsys):
    _, settings = tiny_models.PEERS["bert"]
    peer = transformers.BertForPreTraining(transformers.BertConfig(**settings))
    tiny_models.randomize(peer, seed=0)
    peer.save_pretrained(tmp_path)
    parts = ("bert.pooler.dense", "cls.seq_relationship")
    assert set(read(tmp_path).left_out) == {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert not capsys.readouterr().err
    module = import_model(tmp_path)
    assert "left out: bert.pooler.dense.bias" in capsys.readouterr().err
    tokens = tiny_models.draw(2, 9)
    with torch.no_grad():
        wanted = peer.eval()(input_ids=tokens).prediction_logits
        torch.testing.assert_close(tiny_models.ours(module, tokens), wanted, **CLOSE)


@pytest.mark.parametrize(
    ("name", "bare", "prefix", "new"),
    [
        ("gpt2", "GPT2Model", "transformer.", []),
        ("llama", "LlamaModel", "model.", ["heads.lm.output.matrix.weight"]),
        ("gpt_neox", "GPTNeoXModel", "gpt_neox.", ["heads.lm.output.matrix.weight"]),
        ("bert", "BertModel", "bert.", ["bias", "transform.dense.weight", "transform.dense.bias", "transform.norm.weight", "transform.norm.bias"]),
        ("distilbert", "DistilBertModel", "distilbert.", ["bias", "transform.dense.weight", "transform.dense.bias", "transform.norm.weight", "transform.norm.bias"]),
        ("bart", "BartModel", "model.", []),
    ],
)  # fmt: skip
def test_bare_models(pair_of, tmp_path, name, bare, prefix, new, capsys):
    """Saved without a head, their names lack a prefix; what the head needs is new, and said to be."""
    pair = pair_of(name)
    getattr(pair.peer, prefix.rstrip(".")).save_pretrained(tmp_path)
    assert not any(key.startswith(prefix) for key in load_file(tmp_path / "model.safetensors"))
    found = read(tmp_path)
    for key, tensor in found.state.items():
        torch.testing.assert_close(tensor, pair.module.state_dict()[key], rtol=0, atol=0)
    wanted = {key if key.startswith("heads") else f"heads.mlm.output.{key}" for key in new}
    module = import_model(tmp_path)
    assert module.state_dict().keys() - found.state.keys() == wanted
    assert ("new, not in the folder: heads." in capsys.readouterr().err) == bool(wanted)


def test_norms_called_gamma_and_beta(folder):
    """As in the first published BERT."""
    path = folder("bert")
    rewrite(path, lambda state: {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in state.items()})  # fmt: skip
    assert "bert.embeddings.LayerNorm.gamma" in load_file(path / "model.safetensors")
    same_scores(path, transformers.BertForMaskedLM)


@pytest.mark.parametrize(
    ("name", "second", "first"),
    [
        ("gpt2", "lm_head.weight", "transformer.wte.weight"),
        ("llama-grouped-tied", "lm_head.weight", "model.embed_tokens.weight"),
        ("bert", "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("bert", "cls.predictions.decoder.bias", "cls.predictions.bias"),
        ("roberta", "lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
        ("distilbert", "vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight"),
        ("t5", "encoder.embed_tokens.weight", "shared.weight"),
        ("bart", "model.decoder.embed_tokens.weight", "model.shared.weight"),
        ("marian", "lm_head.weight", "model.shared.weight"),
    ],
)
def test_second_names_of_shared_tensors(pair_of, folder, name, second, first):
    """Both names, or the other one alone, give the same model, and nothing is left out."""
    path, wanted = folder(name), pair_of(name).module.state_dict()
    for written in (
        lambda state: {**state, second: state[first]},
        lambda state: {k: v for k, v in state.items() if k != first},
    ):
        rewrite(path, written)
        found = read(path)
        assert found.left_out == [] and found.state.keys() == wanted.keys()
        assert all(torch.equal(found.state[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("name", ["gpt2", "llama-grouped-tied", "t5"])
def test_an_output_matrix_of_its_own_whatever_the_settings_say(folder, name):
    """transformers goes by the weights too."""
    path = folder(name)
    rewrite(path, lambda state: {**state, "lm_head.weight": torch.randn(tiny_models.VOCABULARY, tiny_models.WIDTH)})
    assert read(path).config.tie_embeddings is False
    source = tiny_models.draw(2, 7, seed=1) if name == "t5" else None
    same_scores(path, getattr(transformers, tiny_models.PEERS[name][0]), source=source)


def test_a_shared_tensor_with_two_values(folder):
    path = folder("bart")
    rewrite(path, lambda state: {**state, "model.encoder.embed_tokens.weight": state["model.shared.weight"] + 1})
    with pytest.raises(CheckpointError, match=r"model.encoder.embed_tokens.weight and model.shared.weight differ"):
        read(path)


@pytest.mark.parametrize("old", [False, True], ids=["transformers 5", "transformers 4"])
def test_t5_v11_folders_of_both_generations(folder, old):
    """Version 4 said ``tie_word_embeddings: false``; version 5 says true, and scale_decoder_outputs."""
    path = folder("t5-v1.1")
    if old:
        change(path, tie_word_embeddings=False, scale_decoder_outputs="absent")
    found = read(path)
    assert (found.config.tie_embeddings, found.config.output_scale) == (False, 1.0)
    same_scores(path, transformers.T5ForConditionalGeneration, source=tiny_models.draw(2, 7, seed=1))


def test_a_bart_without_a_bias_has_none(folder):
    path = folder("bart")
    assert read(path).config.output_bias is True
    rewrite(path, lambda state: {**state, "final_logits_bias": torch.zeros(1, tiny_models.VOCABULARY)})
    assert read(path).config.output_bias is False
    rewrite(path, lambda state: {k: v for k, v in state.items() if k != "final_logits_bias"})
    same_scores(path, transformers.BartForConditionalGeneration, source=tiny_models.draw(2, 7, seed=1))


def test_tables_that_are_computed_are_ignored(folder):
    path = folder("marian")
    rewrite(path, lambda state: {**state, "model.encoder.embed_positions.weight": torch.zeros(48, 24)})
    assert read(path).left_out == ["model.encoder.embed_positions.weight"]


@pytest.mark.parametrize(
    ("name", "old", "field", "value"),
    [
        ("gpt_neox", {"rotary_pct": 0.67, "rotary_emb_base": 300}, "rotary_share", 0.67),
        ("llama", {"rope_theta": 300.0, "rope_scaling": {"type": "linear", "factor": 3.0}}, "rotary_base", 300.0),
        ("llama", {"rope_theta": 300.0, "rope_scaling": {k: v for k, v in tiny_models.LLAMA3.items() if k != "rope_theta"}}, "rotary_base", 300.0),
        ("qwen2", {"rope_theta": 300.0, "rope_scaling": None, "use_sliding_window": False, "sliding_window": 4, "layer_types": "absent"}, "window", None),
    ],
)  # fmt: skip
def test_rotary_positions_as_transformers_4_wrote_them(folder, name, old, field, value):
    path = folder(name)
    change(path, rope_parameters="absent", **old)
    assert getattr(read(path).config, field) == value
    same_scores(path, getattr(transformers, tiny_models.PEERS[name][0]))


def test_half_precision_is_read_as_single(folder):
    path = folder("llama")
    rewrite(path, lambda state: {name: value.bfloat16() for name, value in state.items()})
    assert {value.dtype for value in read(path).state.values()} == {torch.float32}


def test_shards(pair_of, tmp_path):
    pair = pair_of("gpt_neox")
    pair.peer.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2 and not (tmp_path / "model.safetensors").exists()
    found = read(tmp_path).state
    assert all(torch.equal(found[name], value) for name, value in pair.module.state_dict().items())


def test_pickles_without_code(pair_of, folder):
    path = folder("gpt2")
    state = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    buffers = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 48, 48).tril(),
        "lm_head.weight": state["transformer.wte.weight"],
    }
    torch.save({**state, **buffers}, path / "pytorch_model.bin")
    found = read(path)
    assert found.left_out == ["transformer.h.0.attn.bias"]
    assert all(torch.equal(found.state[name], value) for name, value in pair_of("gpt2").module.state_dict().items())


def test_a_tokenizer_without_rules_keeps_to_it(folder, tmp_path):
    """Exported again, it does not begin to add start tokens, as those of our own trainings do."""
    path = folder("llama")
    Tokenizer.train([], TokenizerConfig(kind="byte")).save(path / "tokenizer.json")
    import_run(path, tmp_path / "run")
    export_model(load(tmp_path / "run"), tmp_path / "out")
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode("ab").ids == [101, 102]


def test_targets_start_as_the_folder_says(folder):
    assert import_model(folder("bart")).head.decoder_start_id == 2


def test_transformers_is_only_needed_by_tests():
    package = Path(lightning_nlp.__file__).parent
    files = sorted(package.rglob("*.py"))
    assert package / "interop" / "t5.py" in files
    assert not [file for file in files if re.search(r"(import|from) transformers", file.read_text())]


# Broken ones ------------------------------------------------------------------------------------------------------


class Payload:
    def __reduce__(self):
        return os.mkdir, ("run-by-a-pickle",)


def test_pickles_with_code_are_refused_and_not_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = folder("gpt2")
    state = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    torch.save({**state, "evil": Payload()}, path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"cannot read .*pytorch_model\.bin"):
        read(path)
    assert not (tmp_path / "run-by-a-pickle").exists()


def truncate(path):
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-40])


def no_weights(path):
    (path / "model.safetensors").unlink()


def index(path, **places):
    (path / "model.safetensors").rename(path / "model-1.safetensors")
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def no_tensors(path):
    (path / "model.safetensors").unlink()
    torch.save([1, 2], path / "pytorch_model.bin")


EMBEDDING, QUERY = "model.embed_tokens.weight", "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("name", "breaking", "kind", "message"),
    [
        ("llama", truncate, CheckpointError, r"cannot read .*model\.safetensors"),
        ("llama", no_weights, ConfigError, "has no weights: neither model.safetensors nor pytorch_model.bin"),
        ("llama", no_tensors, CheckpointError, "holds no tensors by name"),
        ("llama", lambda path: index(path, a="../llama/model-1.safetensors"), CheckpointError, "names '../llama/model-1.safetensors', which is not in the folder"),
        ("llama", lambda path: index(path, a="model-2.safetensors"), CheckpointError, "names 'model-2.safetensors', which is not in the folder"),
        ("llama", lambda path: index(path, a="model-1.safetensors"), CheckpointError, "names a, which is in none of its files"),
        ("llama", lambda path: (no_weights(path), (path / "model.safetensors.index.json").write_text("[]")), CheckpointError, "is no index of weights"),
        ("llama", lambda path: rewrite(path, lambda s: {k: v for k, v in s.items() if k != QUERY}), CheckpointError, f"missing {QUERY}$"),
        ("llama", lambda path: rewrite(path, lambda s: {**s, "model.extra": torch.ones(2)}), CheckpointError, "unexpected model.extra$"),
        ("llama", lambda path: rewrite(path, lambda s: {**s, QUERY: s[QUERY][:-1]}), CheckpointError, rf"{QUERY} is \[31, 24\] instead of \[32, 24\]$"),
        ("gpt_neox", lambda path: rewrite(path, lambda s: {**s, "gpt_neox.layers.0.attention.query_key_value.bias": torch.ones(5)}), CheckpointError, r"query_key_value.bias is \[5\] instead of \[72\]$"),
        ("gpt2", lambda path: change(path, n_embd=28), CheckpointError, r"transformer.wte.weight is \[61, 24\] instead of \[61, 28\].* and \d+ more$"),
        ("llama", lambda path: change(path, model_type="lama"), ConfigError, r"config\.json: unknown model_type 'lama'; did you mean 'llama'\?"),
        ("llama", lambda path: change(path, model_type="absent"), ConfigError, "does not say its model_type"),
        ("llama", lambda path: change(path, model_type=["llama"]), ConfigError, "does not say its model_type"),
        ("llama", lambda path: change(path, hidden_size="absent"), ConfigError, r"config\.json: hidden_size is missing"),
        ("llama", lambda path: change(path, hidden_size="wide"), ConfigError, r"config\.json: a value has the wrong type"),
        ("llama", lambda path: change(path, hidden_act="gelu"), ConfigError, "^config.json of a llama model: hidden_act 'gelu' is not supported, 'silu' is$"),
        ("llama", lambda path: change(path, attention_bias=True), ConfigError, "attention_bias True is not supported"),
        ("llama", lambda path: change(path, rope_parameters={"rope_type": "longrope", "factor": 2}), ConfigError, "rope type 'longrope' is not supported"),
        ("llama", lambda path: change(path, rope_parameters={"full_attention": {"rope_theta": 5}}), ConfigError, "rope_parameters that differ between layers"),
        ("qwen2", lambda path: change(path, use_sliding_window=True, max_window_layers=1, layer_types="absent"), ConfigError, "a window in some layers only"),
        ("gpt2", lambda path: change(path, activation_function="quick_gelu"), ConfigError, "^config.json: activation_function 'quick_gelu' is not supported .known: gelu_new"),
        ("gpt2", lambda path: change(path, scale_attn_by_inverse_layer_idx=True), ConfigError, "scale_attn_by_inverse_layer_idx True"),
        ("gpt_neox", lambda path: change(path, attention_bias=False), ConfigError, "gpt_neox model: attention_bias False"),
        ("bert", lambda path: change(path, hidden_act="relu"), ConfigError, "hidden_act 'relu' is not supported, 'gelu' is"),
        ("bert", lambda path: change(path, position_embedding_type="relative_key"), ConfigError, "position_embedding_type 'relative_key'"),
        ("roberta", lambda path: change(path, pad_token_id=None), ConfigError, "pad_id must be set: a roberta counts"),
        ("t5", lambda path: change(path, feed_forward_proj="gated-tanh"), ConfigError, "feed_forward_proj 'gated-tanh' is not supported"),
        ("bart", lambda path: change(path, decoder_attention_heads=2), ConfigError, "decoder_attention_heads 2 is not supported beside encoder_attention_heads 4"),
        ("bart", lambda path: change(path, decoder_ffn_dim=20), ConfigError, "decoder_ffn_dim 20 is not supported beside encoder_ffn_dim 40"),
        ("bart", lambda path: change(path, normalize_before=True), ConfigError, "bart model: normalize_before True"),
        ("marian", lambda path: change(path, share_encoder_decoder_embeddings=False), ConfigError, "share_encoder_decoder_embeddings False"),
        ("marian", lambda path: (path / "config.json").write_text("{"), ConfigError, "is no JSON"),
        ("marian", lambda path: (path / "config.json").unlink(), ConfigError, "has no config.json"),
        ("marian", shutil.rmtree, ConfigError, "there is no folder"),
    ],
)  # fmt: skip
def test_one_line_that_names_what_is_wrong(folder, name, breaking, kind, message):
    path = folder(name)
    breaking(path)
    with pytest.raises(kind, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_runs_are_not_written_over(folder, tmp_path):
    path = folder("llama")
    with pytest.raises(ConfigError, match="exists already"):
        import_run(path, path)
    import_run(path, tmp_path / "run")
    with pytest.raises(ConfigError, match="exists already"):
        import_run(path, tmp_path / "run")


def test_a_failed_import_leaves_nothing_behind(folder, tmp_path):
    path = folder("llama")
    truncate(path)
    with pytest.raises(CheckpointError):
        import_run(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()
