"""Objectives that split documents, carry masks or have other labels: kills and ranks leave no trace; answers come out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lightning_nlp.__main__ import main
from tests.integration import runs

pytestmark = pytest.mark.slow
SEQ2SEQ, LM, CLASSES = "SequenceToSequence", "CausalLM", "TextClassification"
# task, arrangement, data, its settings, metrics
OBJECTIVES = {
    "spans": (SEQ2SEQ, "encoder_decoder", "SpanCorruptionData", "max_source_length: 40", {"loss", "perplexity", "token_accuracy", "exact_match"}),
    "denoising": (SEQ2SEQ, "encoder_decoder", "DenoisingData", "max_length: 40", {"loss", "perplexity", "token_accuracy", "exact_match"}),
    "prefix": (LM, "decoder", "PrefixLMData", "max_length: 40", {"loss", "perplexity", "bits_per_byte"}),
    "pairs": (LM, "decoder", "PrefixPairsData", "max_length: 64, text: x", {"loss", "perplexity", "bits_per_byte"}),
    "dialogue": (LM, "decoder", "DialogueData", "max_length: 64, history_turns: 2", {"loss", "perplexity", "bits_per_byte"}),
    "two texts": (CLASSES, "encoder", "TextClassificationData", "max_length: 64, text_column: source, text_pair_column: target", {"loss", "accuracy", "macro_f1", "mcc"}),
    "labels": (CLASSES, "encoder", "TextClassificationData", "label_column: words, problem: multi_label", {"loss", "micro_f1", "macro_f1", "exact_match"}),
    "number": (CLASSES, "encoder", "TextClassificationData", "label_column: size, problem: regression", {"loss", "pearson", "spearman"}),
}  # fmt: skip


KILLED = ("spans", "dialogue")
"""Whose documents give several examples, so that a stop may fall between them."""
RANKS = ("spans", "labels", "number")
"""Whose metrics are summed, or gathered, in a way of their own."""


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Rows that every objective finds something in."""
    directory = tmp_path_factory.mktemp("texts")
    draw = np.random.default_rng(0)
    for split, size in (("train", 160), ("validation", 20), ("test", 5)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                words = draw.choice(runs.WORDS, int(draw.choice([1, 3, 8, 40]))).tolist()
                turns = [
                    {"role": "assistant" if place % 2 else "user", "content": word}
                    for place, word in enumerate([*words, "end"])
                ]
                row = {
                    "id": f"{split}-{number}",
                    "text": " ".join(words),
                    "source": " ".join(words[:8]),
                    "target": " ".join(words[:4][::-1]),
                    "messages": turns
                    if len(turns) % 2 == 0
                    else turns[:-1]
                    if len(turns) > 2
                    else [*turns, turns[-1] | {"role": "assistant"}],
                    "label": "long" if len(words) > 3 else "short",
                    "words": sorted({word for word in words if word in ("cat", "sat", "dog")}),
                    "size": len(words) / 8,
                }
                stream.write(json.dumps(row) + "\n")
    return directory


@pytest.fixture(scope="module", params=OBJECTIVES)
def objective(request):
    return request.param


def write_config(path, objective, texts):
    task, arrangement, data, settings, _ = OBJECTIVES[objective]
    settings = "\n    ".join(part for part in settings.split(", ") if part != "text: x")
    path.write_text(
        f"""
seed_everything: 7
model:
  class_path: {task}
  init_args:
    backbone: {{arrangement: {arrangement}, n_layers: 1, d_model: 32, n_heads: 2, max_length: 300, dropout: 0.1}}
    optimizer: {{lr: 0.003}}
    schedule: {{name: cosine, warmup: 5}}
    {"generation: {max_new_tokens: 4}" if task != CLASSES else "head_dropout: 0.0"}
data:
  class_path: {data}
  init_args:
    path: {texts}
    tokenizer: {{vocab_size: 300}}
    {settings}
    global_batch_size: 8
    micro_batch_size: 2
    lanes: 4
    block_rows: 16
trainer: {{max_steps: 20, validate_every: 8, checkpoint_every: 4, log_every_n_steps: 1, gradient_clip_val: 1.0, accelerator: cpu, devices: 1}}
"""
    )
    return path


@pytest.fixture(scope="module")
def clean(tmp_path_factory, objective, texts):
    """An uninterrupted run."""
    root = tmp_path_factory.mktemp("clean")
    config = write_config(root / "tiny.yaml", objective, texts)
    assert main(["fit", "-c", str(config), "--root", str(root), "--name", "clean"]) == 0
    return config, root / "clean"


@pytest.mark.parametrize("objective", KILLED, indirect=True, scope="module")
def test_killed_runs_equal_the_clean_one(clean, tmp_path):
    config, directory = clean
    killed, hits = runs.kill_and_resume(config, tmp_path, kills=2, seed=3)
    assert hits
    assert runs.history(killed) == runs.history(directory)


@pytest.mark.parametrize("objective", RANKS, indirect=True, scope="module")
def test_two_ranks_see_the_same_global_batches(clean, tmp_path):
    config, _ = clean
    common = ("--model.backbone.dropout", 0, "--trainer.max_steps", 4, "--trainer.validate_every", 4)
    runs.inside("fit", "-c", config, "--root", tmp_path, "--name", "one", *common)
    runs.run(
        "fit",
        "-c",
        config,
        "--root",
        tmp_path,
        "--name",
        "two",
        *common,
        "--trainer.devices",
        2,
        "--trainer.strategy",
        "ddp",
    )
    one, two = runs.history(tmp_path / "one"), runs.history(tmp_path / "two")
    assert one.keys() == two.keys() and any(name.startswith("val/") for _, name in one)
    for key, value in one.items():
        if key[1] in ("ids", "tokens", "data/documents", "data/split"):
            assert two[key] == value
        elif key[1] in ("val/pearson", "val/spearman"):  # of numbers that hardly differ yet
            assert two[key] == pytest.approx(value, abs=1e-3)
        elif key[1] != "data/padding":  # each rank pads its own micro-batches
            assert two[key] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_what_a_run_reports_and_answers(clean, objective, tmp_path, capsys):
    _, directory = clean
    task, *_, metrics = OBJECTIVES[objective]
    assert main(["test", "--run", str(directory)]) == 0
    reported = set(json.loads((directory / "reports" / "test.test.json").read_text())["metrics"])
    said = {*metrics, *(["byte_perplexity"] if "bits_per_byte" in metrics else [])}
    assert reported == {f"test/{name}" for name in said}
    assert main(["predict", "--run", str(directory), "--output", str(tmp_path / "own.jsonl")]) == 0
    own = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    assert own and {record["id"].partition("@")[0] for record in own} <= {f"test-{number}" for number in range(5)}
    short = [record for record in own if record.get("error") == "the text gives nothing to predict from"]
    assert len(short) < len(own)
    for record in (record for record in own if record not in short):
        assert "prediction" in record and (task != LM or record["target"])
    if task != CLASSES:
        capsys.readouterr()
        assert main(["generate", "--run", str(directory), "--prompt", "the cat"]) == 0
        said = capsys.readouterr().out
        assert said.endswith("\n") and (task != LM or said.startswith("the cat"))  # four tokens may spell nothing
