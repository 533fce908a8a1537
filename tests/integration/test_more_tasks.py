"""Masked LM and sequence to sequence: kills, ranks and accumulation leave no trace, as for every other task."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import lightning_nlp
from lightning_nlp.__main__ import main
from tests.integration import runs

pytestmark = pytest.mark.slow
TASKS = ("masked_lm", "sequence_to_sequence")
MODELS = {
    "masked_lm": ("MaskedLM", "encoder", 'sample_texts: ["the <mask> sat"]'),
    "sequence_to_sequence": (
        "SequenceToSequence",
        "encoder_decoder",
        "decode_examples: 6, generation: {max_new_tokens: 6}",
    ),
}
DATA = {"masked_lm": "max_length: 32", "sequence_to_sequence": "max_source_length: 40, max_target_length: 24"}


@pytest.fixture(scope="module", params=TASKS)
def task(request):
    return request.param


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Sentences of one to sixty words; their targets are the same words backwards, at most eight of them."""
    directory = tmp_path_factory.mktemp("texts")
    draw = np.random.default_rng(0)
    for split, size in (("train", 200), ("validation", 20), ("test", 5)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                words = draw.choice(runs.WORDS, int(draw.choice([1, 3, 8, 60]))).tolist()
                row = {"id": f"{split}-{number}", "text": " ".join(words), "source": " ".join(words)}
                stream.write(json.dumps({**row, "target": " ".join(words[::-1][:8])}) + "\n")
    return directory


def write_config(path, task, texts):
    model, arrangement, more = MODELS[task]
    path.write_text(
        f"""
seed_everything: 7
model:
  class_path: {model}
  init_args:
    backbone: {{arrangement: {arrangement}, n_layers: 1, d_model: 32, n_heads: 2, max_length: 64, dropout: 0.1}}
    optimizer: {{lr: 0.003}}
    schedule: {{name: cosine, warmup: 5}}
    {more.replace(", generation", chr(10) + "    generation")}
data:
  class_path: {model}Data
  init_args:
    path: {texts}
    tokenizer: {{vocab_size: 300}}
    {DATA[task].replace(", ", chr(10) + "    ")}
    global_batch_size: 8
    micro_batch_size: 2
    lanes: 4
    block_rows: 16
trainer: {{max_steps: 30, validate_every: 12, checkpoint_every: 5, log_every_n_steps: 1, gradient_clip_val: 1.0, accelerator: cpu, devices: 1}}
"""
    )
    return path


@pytest.fixture(scope="module")
def clean(tmp_path_factory, task, texts):
    """An uninterrupted run."""
    root = tmp_path_factory.mktemp(task)
    config = write_config(root / "tiny.yaml", task, texts)
    runs.run("fit", "-c", config, "--root", root, "--name", "clean")
    return config, root / "clean"


def test_killed_runs_equal_the_clean_one(clean, tmp_path):
    config, directory = clean
    killed, hits = runs.kill_and_resume(config, tmp_path, kills=3, seed=1)
    assert hits >= 2
    assert max(runs.steps_back(killed), default=0) <= 5
    assert runs.history(killed) == runs.history(directory)


def test_two_ranks_see_the_same_global_batches_and_learn_the_same(clean, tmp_path):
    config, _ = clean
    common = ("--model.backbone.dropout", 0, "--trainer.max_steps", 8, "--trainer.validate_every", 4)
    runs.run("fit", "-c", config, "--root", tmp_path, "--name", "one", *common)
    ranks = ("--trainer.devices", 2, "--trainer.strategy", "ddp")
    runs.run("fit", "-c", config, "--root", tmp_path, "--name", "two", *common, *ranks)
    one, two = runs.history(tmp_path / "one"), runs.history(tmp_path / "two")
    assert one.keys() == two.keys() and any(name.startswith("val/") for _, name in one)
    for key, value in one.items():
        if key[1] in ("ids", "tokens", "val/exact_match"):
            assert two[key] == value
        else:
            assert two[key] == pytest.approx(value, rel=2e-5)
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "step-8.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)


def test_what_a_run_answers_and_reports(clean, task, tmp_path, capsys):
    _, directory = clean
    names = {
        "masked_lm": {"loss", "pseudo_perplexity", "accuracy"},
        "sequence_to_sequence": {"loss", "perplexity", "token_accuracy", "exact_match"},
    }
    assert main(["test", "--run", str(directory)]) == 0
    report = json.loads((directory / "reports" / "test.test.json").read_text())
    assert set(report["metrics"]) == {f"test/{name}" for name in names[task]}
    if task == "masked_lm":
        assert report["signatures"]["accuracy"].endswith("masked:0.15 of tokens|mask/random/kept:0.8/0.1/0.1")
    source = tmp_path / "my.txt"
    source.write_text("the cat <mask> on\n\na mat\n")
    assert (
        main(["predict", "--run", str(directory), "--input", str(source), "--output", str(tmp_path / "out.jsonl")]) == 0
    )
    assert "3 predictions" in (said := capsys.readouterr().err) and "1 of them rows that could not be" in said
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert records.pop(1) == {"id": "input:1", "error": "the text is empty"}
    assert [record["id"] for record in records] == ["input:0", "input:2"]
    if task == "masked_lm":
        assert [len(record["masks"]) for record in records] == [1, 0]
        assert records[0]["prediction"].startswith("the cat") and records[1]["prediction"] == "a mat"
    else:
        assert [set(record) for record in records] == [{"id", "source", "prediction", "score"}] * 2
    assert main(["predict", "--run", str(directory), "--output", str(tmp_path / "own.jsonl")]) == 0
    own = [json.loads(line) for line in (tmp_path / "own.jsonl").read_text().splitlines()]
    assert [record["id"] for record in own] == [f"test-{number}" for number in range(5)]
    if task == "masked_lm":
        assert any("target" in mask for record in own for mask in record["masks"])
    else:
        assert all(record["target"] == " ".join(record["source"].split()[::-1][:8]) for record in own)
    module = lightning_nlp.load(directory)
    assert module.head.samples(module.backbone).keys() == ({"sample_0"} if task == "masked_lm" else set())


def train(task, directory, run, micro):
    """Weights and logged values after three SGD steps of eight rows, ``micro`` rows at a time."""
    shape = {"n_layers": 1, "d_model": 32, "n_heads": 2, "max_length": 128}
    name, arrangement, _ = MODELS[task]
    optimizer = lightning_nlp.OptimizerConfig(name="sgd", lr=0.5, weight_decay=0.0)
    schedule = lightning_nlp.ScheduleConfig(name="constant")
    tokenizer = lightning_nlp.TokenizerConfig(kind="byte")
    torch.manual_seed(0)
    config = lightning_nlp.TransformerConfig(arrangement=arrangement, **shape)
    module = getattr(lightning_nlp, name)(config, optimizer, schedule)
    lengths = {"max_length": 16} if task == "masked_lm" else {"max_source_length": 50, "max_target_length": 40}
    data = getattr(lightning_nlp, f"{name}Data")(
        str(directory), tokenizer=tokenizer, global_batch_size=8, micro_batch_size=micro, lanes=8, **lengths
    )
    trainer = lightning_nlp.Trainer(
        max_steps=3,
        validate_every=0,
        log_every_n_steps=1,
        limit_val_batches=0,
        gradient_clip_val=0.3,
        accelerator="cpu",
        enable_progress_bar=False,
        logger=False,
        default_root_dir=str(run),
    )
    trainer.fit(module, datamodule=data)
    return module.state_dict(), runs.lines(run)


def test_accumulation_equals_one_big_batch(task, texts, tmp_path):
    """Rows of sixteen tokens have none to four hidden ones: a mean of means would weigh them wrongly."""
    whole, expected = train(task, texts, tmp_path / "whole", 8)
    for micro in (4, 1):
        parts, found = train(task, texts, tmp_path / f"parts-{micro}", micro)
        for name, value in whole.items():
            torch.testing.assert_close(parts[name], value, rtol=0, atol=2e-6, msg=f"{name}, micro-batch {micro}")
        for one, other in zip(expected, found, strict=True):
            assert one["ids"] == other["ids"] and one["tokens"] == other["tokens"]
            assert other["train/loss"] == pytest.approx(one["train/loss"], abs=1e-6)
            assert other["train/grad_norm"] == pytest.approx(one["train/grad_norm"], rel=1e-5)


def test_a_classifier_starts_from_a_masked_lm(texts, tmp_path, capsys):
    """The pre-trained encoder, its tokenizer with the mask token, and a head that is new."""
    config = write_config(tmp_path / "tiny.yaml", "masked_lm", texts)
    assert main(["fit", "-c", str(config), "--root", str(tmp_path), "--trainer.max_steps", "2"]) == 0
    label = tmp_path / "labelled.jsonl"
    label.write_text("".join(json.dumps({"text": f"the cat {n}", "label": n % 2}) + "\n" for n in range(40)))
    recipe = tmp_path / "classify.yaml"
    recipe.write_text(
        f"model: {{class_path: TextClassification, init_args: {{backbone: {{arrangement: encoder}}}}}}\n"
        f"data: {{class_path: TextClassificationData, init_args: {{path: {label}, max_length: 32, global_batch_size: 8}}}}\n"
        "trainer: {max_steps: 2, accelerator: cpu, devices: 1}\n"
    )
    capsys.readouterr()
    args = ["fit", "-c", str(recipe), "--root", str(tmp_path), "--init_from", str(tmp_path / "tiny")]
    assert main(args) == 0
    assert "tensors loaded, new: heads.classification" in capsys.readouterr().err
