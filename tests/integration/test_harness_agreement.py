"""Numbers that others can compare: those of lm-evaluation-harness, and of models whose numbers are known."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import lightning_nlp
from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.tokenizers.config import TokenizerConfig

pytestmark = pytest.mark.slow
TEXTS = [
    "the cat",
    "a",
    " two  spaces\nand lines \t",
    "Größe 🎈 漢字",
    "the cat sat on a mat " * 20,
    "x" * 64,
    "y" * 65,
]
"""Shorter than a window of 32 bytes, exactly two, a byte more, many."""


def test_lm_evaluation_harness_says_the_same(trained, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval.models.huggingface", reason="pip install lm-eval accelerate")
    from benchmarks.harness_agreement import compare

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    for row in compare(run, file):
        assert row["ours"] == pytest.approx(row["theirs"], rel=1e-5), row


class Uniform(lightning_nlp.CausalLM):
    """Every byte is as likely as any other, and special tokens never come."""

    def configure_model(self) -> None:
        super().configure_model()
        for parameter in self.head.parameters():
            torch.nn.init.zeros_(parameter)
        ids = [number for number in range(260) if self.head.tokenizer.bytes_of(number) == 0]
        with torch.no_grad():
            self.backbone.embedding_weight.zero_()
            self.head.output.bias[ids] = -1e4


@pytest.mark.parametrize("stride", [None, 7, 32])
def test_a_uniform_byte_model_has_eight_bits_per_byte(tmp_path, stride):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
        (tmp_path / "data" / f"{split}.jsonl").write_text(rows)
    backbone = {"n_layers": 1, "d_model": 8, "n_heads": 1, "max_length": 32, "output_bias": True}
    data = CausalLMData(
        str(tmp_path / "data"),
        tokenizer=TokenizerConfig(kind="byte"),
        max_length=32,
        global_batch_size=4,
        eval_stride=stride,
    )
    trainer = lightning_nlp.Trainer(default_root_dir=str(tmp_path / "run"), logger=False, accelerator="cpu", devices=1)
    trainer.validate(Uniform(lightning_nlp.TransformerConfig(**backbone)), data, verbose=False)
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    size = sum(len(text.encode()) for text in TEXTS)
    assert found["val/bits_per_byte"] == pytest.approx(8.0, abs=1e-6)
    assert found["val/byte_perplexity"] == pytest.approx(256.0, rel=1e-6)
    words = 2 + 1 + 6 + 3 + 121 + 1 + 1
    assert found["val/word_perplexity"] == pytest.approx(256.0 ** (size / words), rel=1e-4)
