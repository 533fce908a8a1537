"""The user's way: a folder of transformers in, text out, and a folder that transformers reads."""

from __future__ import annotations

import json

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from lightning_nlp.__main__ import main
from tests.integration.runs import WORDS

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
pytestmark = pytest.mark.slow
PROMPT, NEW = "the cat sat", 12


def their_text(folder):
    """What transformers writes, its tokenizer and generation settings taken as they come."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    found = model.generate(**tokenizer(PROMPT, return_tensors="pt"), max_new_tokens=NEW, do_sample=False)
    return tokenizer.decode(found[0], skip_special_tokens=True)


def our_text(run, capsys):
    capsys.readouterr()
    args = ["generate", "--run", str(run), "--prompt", PROMPT, "--max_new_tokens", str(NEW), "--temperature", "0"]
    assert main(args) == 0
    return capsys.readouterr().out.removesuffix("\n")


@pytest.fixture
def folder(tmp_path):
    """A small Llama with a tokenizer that was trained for it."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>", "<unk>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([" ".join(WORDS)] * 5, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_import_generate_export(folder, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    assert main(["import", "--from", str(folder), "--output", str(run)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{run}: CausalLM with ") and said.err == ""
    assert json.loads((run / "import.json").read_text())["family"] == "llama"
    wanted = their_text(folder)
    assert len(set(wanted[len(PROMPT) :])) > 3
    assert our_text(run, capsys) == wanted
    assert main(["export", "--run", str(run), "--output", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: LlamaForCausalLM, ")
    assert their_text(out) == wanted


def test_what_we_trained_in_transformers(trained, tmp_path, capsys):
    """The default architecture is a GPT-NeoX without biases; start tokens come with its tokenizer."""
    out = tmp_path / "out"
    assert main(["export", "--run", str(trained), "--output", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: GPTNeoXForCausalLM")
    assert their_text(out) == our_text(trained, capsys)
    assert main(["import", "--from", str(out), "--output", str(tmp_path / "again")]) == 0
    assert our_text(tmp_path / "again", capsys) == our_text(trained, capsys)


def test_special_tokens_that_are_not_ours_are_named(folder, tmp_path, capsys):
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": {"content": "<|im_end|>"}}))
    assert main(["import", "--from", str(folder), "--output", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == "the folder's eos token is '<|im_end|>'; here it is '</s>'\n"


def test_mistakes_are_one_line(folder, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["import", "--from", str(folder), "--output", str(run)]) == 0
    capsys.readouterr()
    for args, message in (
        (["import", "--from", str(folder), "--output", str(run)], "exists already"),
        (["import", "--from", str(tmp_path), "--output", str(tmp_path / "x")], "has no config.json"),
        (["import", "--form", str(folder), "--output", str(run)], "--from"),
        (["export", "--run", str(run), "--output", str(folder)], "exists already"),
        (["export", "--run", str(run), "--output", str(tmp_path / "x"), "--family", "lama"], "did you mean 'llama'?"),
        (["export", "--run", str(run), "--output", str(tmp_path / "x"), "--family", "gpt2"], "gpt2 cannot say"),
    ):
        assert main(args) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
    assert not (tmp_path / "x").exists()
