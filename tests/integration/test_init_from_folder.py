"""``--init_from`` a folder of another library: its architecture, weights and tokenizer win."""

from __future__ import annotations

import pytest
import torch

import lightning_nlp
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from tests.integration import runs

transformers = pytest.importorskip("transformers", reason="needs transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 with a byte tokenizer of fewer tokens than it has rows."""
    path = tmp_path_factory.mktemp("gpt2")
    tokenizer = Tokenizer.train([], lightning_nlp.TokenizerConfig(kind="byte"))
    config = transformers.GPT2Config(n_layer=1, n_embd=32, n_head=2, n_positions=64, vocab_size=264)
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(config).save_pretrained(path)
    tokenizer.save(path / "tokenizer.json")
    return path


def test_fine_tuning_starts_from_the_folder(folder, tmp_path):
    config = runs.write_config(tmp_path / "lm.yaml", runs.write_corpus(tmp_path / "corpus", 40), max_steps=2)
    lr = ("--model.optimizer.lr", 1e-12, "--model.optimizer.weight_decay", 0)
    done = runs.run("fit", "-c", config, "--root", tmp_path, "--init_from", folder, *lr)
    assert "init_from" in done.stderr and "tensors loaded" in done.stderr
    module = lightning_nlp.load(tmp_path / "lm", "last")
    assert (module.config.positions, module.config.vocab_size, module.config.feedforward) == (
        "learned",
        264,
        "gelu_tanh",
    )
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    tokens = torch.randint(0, 260, (2, 20))
    with torch.no_grad():
        ours = module.head.scores(module.backbone, module.backbone(tokens))
        torch.testing.assert_close(ours, model(tokens).logits, atol=1e-5, rtol=1e-5)


def test_a_disagreeing_setting_is_named(folder, tmp_path):
    config = runs.write_config(tmp_path / "lm.yaml", runs.write_corpus(tmp_path / "corpus", 40), max_steps=2)
    done = runs.run(
        "fit", "-c", config, "--root", tmp_path, "--init_from", folder, "--model.backbone.positions", "rotary",
        "--model.backbone.n_layers", 2, check=2,
    )  # fmt: skip
    assert "backbone.n_layers is 2, but --init_from has 1" in done.stderr.splitlines()[-1]
