"""Runs over damaged data and over streams: nothing good is lost, everything bad is counted, and it all resumes."""

from __future__ import annotations

import gzip
import json
import signal

import pytest

from lightning_nlp.__main__ import main
from tests.integration import runs

pytestmark = pytest.mark.slow


def damaged(directory):
    """The usual corpus, of which one row in thirty is malformed, as two files, the second compressed."""
    runs.write_corpus(directory)
    lines = (directory / "train.jsonl").read_text().splitlines()
    lines = ["{oops" if number % 30 == 7 else line for number, line in enumerate(lines)]
    (directory / "train.jsonl").write_text("\n".join(lines[:150]) + "\n")
    (directory / "train-more.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[150:]).encode()))
    return directory


SKIP = ("--data.bad_rows", "skip", "--data.bad_rows_budget", 1000)


@pytest.fixture(scope="module", params=[False, True], ids=["indexed", "stream"])
def clean(tmp_path_factory, request):
    """An uninterrupted run over more than one epoch."""
    root = tmp_path_factory.mktemp("bad-rows")
    config = runs.write_config(root / "tiny.yaml", damaged(root / "corpus"), max_steps=100, validate_every=100)
    how = ("--data.streaming", str(request.param).lower(), *SKIP)
    runs.run("fit", "-c", config, "--root", root, "--name", "clean", *how)
    return config, how, root / "clean"


def numbers(directory):
    """Losses and ids as `runs.history`, and what became of the documents."""
    found = dict(runs.history(directory))
    for line in runs.lines(directory):
        found |= {(line["step"], name): value for name, value in line.items() if name.startswith("data/")}
    return found


def test_bad_rows_are_counted_in_metrics(clean):
    _, _, directory = clean
    last = [line for line in runs.lines(directory) if "data/documents" in line][-1]
    assert last["data/bad_rows"] == last["data/bad_rows/malformed_json"] > 0
    share = last["data/bad_rows"] / (last["data/documents"] + last["data/bad_rows"])
    assert 0.02 < share < 0.05


def test_a_killed_run_goes_on_exactly(clean, tmp_path):
    config, how, directory = clean
    args = ("fit", "-c", config, "--run", tmp_path / "killed", *how)
    for step in (17, 63):
        process = runs.start(list(args), runs.environment())
        assert runs.stop_after(process, tmp_path / "killed", step, 0.0, signal.SIGKILL)
    runs.run(*args)
    assert numbers(tmp_path / "killed") == numbers(directory)


def test_two_ranks_read_the_same_and_count_the_same(clean, tmp_path):
    config, how, directory = clean
    args = ("fit", "-c", config, "--run", tmp_path / "ranks", *how)
    process = runs.start(list(args), runs.environment())
    assert runs.stop_after(process, tmp_path / "ranks", 40, 0.0, signal.SIGTERM)
    ranks = ("--trainer.devices", 2, "--trainer.strategy", "ddp", "--data.micro_batch_size", 4)
    runs.run(*args, *ranks, "--trainer.max_steps", 60)
    expected, found = numbers(directory), numbers(tmp_path / "ranks")
    for step in range(1, 61):
        for name in ("ids", "tokens", "data/documents", "data/bad_rows", "data/bad_rows/malformed_json"):
            assert found.get((step, name)) == expected.get((step, name)), (step, name)


def test_a_budget_stops_the_run_and_a_larger_one_lets_it_go_on(clean, tmp_path):
    config, how, directory = clean
    args = ("fit", "-c", config, "--run", tmp_path / "budget", *how)
    stopped = runs.run(*args, "--data.bad_rows_budget", 9, check=1)
    assert "more than data.bad_rows_budget 9" in stopped.stderr.splitlines()[-1]
    runs.run(*args)
    assert numbers(tmp_path / "budget") == numbers(directory)


def fit(tmp_path, *flags):
    config = runs.write_config(tmp_path / "tiny.yaml", damaged(tmp_path / "corpus"), max_steps=4)
    return main(["fit", "-c", str(config), "--root", str(tmp_path), "--overwrite", *flags])


@pytest.mark.parametrize("streaming", ["true", "false"])
def test_by_default_an_early_bad_row_is_an_error(tmp_path, capsys, streaming):
    assert fit(tmp_path, "--data.streaming", streaming, "--data.tokenizer.kind", "char") == 1
    assert "row 8: malformed JSON" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--data.bad_rows", "ignore"], "bad_rows must be one of auto, error, skip"),
        (["--data.filters", '[{"column": "txt", "min_length": 3}]'], "did you mean 'text'"),
        (["--data.filters", '[{"column": "text"}]'], "'text' has no condition"),
        (["--data.pair", '["en"]'], "data.pair holds two endings"),
        (["--data.reading.retries", "-1"], "data.reading.retries must be at least 0"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, flags, message):
    assert fit(tmp_path, *flags) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_aligned_files_without_epochs_of_a_stream(tmp_path, capsys):
    """A translation from train.en to train.de, filtered; an epoch of a stream is refused where its size is unknown."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for split, rows in (("train", 80), ("dev", 8)):
        for language, word in (("en", "house"), ("de", "Haus")):
            content = "".join(f"{word} {number}{' long' * (number % 5)}\n" for number in range(rows))
            (corpus / f"{split}.{language}").write_text(content)
    config = tmp_path / "pairs.yaml"
    config.write_text(
        f"""
model:
  class_path: SequenceToSequence
  init_args:
    backbone: {{arrangement: encoder_decoder, n_layers: 1, n_encoder_layers: 1, d_model: 32, n_heads: 2, max_length: 64}}
data:
  class_path: SequenceToSequenceData
  init_args:
    path: {corpus}
    pair: [en, de]
    filters: [{{column: source, max_length: 20}}]
    tokenizer: {{kind: byte}}
    max_source_length: 32
    max_target_length: 32
    global_batch_size: 8
trainer: {{max_steps: 12, validate_every: 12, accelerator: cpu, devices: 1, log_every_n_steps: 1}}
"""
    )
    args = ["fit", "-c", str(config), "--root", str(tmp_path), "--overwrite"]
    assert main([*args, "--data.streaming", "true", "--trainer.max_steps", "null", "--trainer.max_epochs", "1"]) == 2
    assert "a stream has no known length" in capsys.readouterr().err.splitlines()[-1]
    assert main(args) == 0
    (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("finished"))
    assert "filtered out" in said
    lines = [json.loads(line) for line in (tmp_path / "pairs" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-2]["data/filtered"] > 0
