"""Data that cannot be used as asked: a clear line and exit code 1, or a counted report; nothing silently lost."""

from __future__ import annotations

import json

import pytest

from lightning_nlp.__main__ import main
from tests.integration import runs

pytestmark = pytest.mark.slow


@pytest.fixture
def labelled(tmp_path):
    """A small two-class set; returns a writer of one split."""

    def write(split, rows):
        directory = tmp_path / "set"
        directory.mkdir(exist_ok=True)
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return directory

    rows = [{"text": f"text number {number}", "label": "odd" if number % 2 else "even"} for number in range(40)]
    write("train", rows)
    write("validation", rows[:8])
    return write


def fit(tmp_path, *flags):
    trainer = "max_steps: 4, validate_every: 4, monitor: val/accuracy, monitor_mode: max"
    config = runs.write_classification_config(tmp_path / "classes.yaml", tmp_path / "set", "max_length: 24", trainer)
    return main(["fit", "-c", str(config), "--root", str(tmp_path), "--overwrite", *flags])


def last_line(capsys):
    """What a command said last; the summary of a run's speed, indented, is not meant."""
    lines = capsys.readouterr().err.strip().splitlines()
    return next(line for line in reversed(lines) if not line.startswith("  "))


def test_label_never_seen_in_training_names_the_row(labelled, tmp_path, capsys):
    labelled("validation", [{"text": "fine", "label": "odd"}, {"text": "what is this", "label": "prime"}])
    assert fit(tmp_path) == 1
    assert "row 2: label 'prime', never seen in training (known: even, odd)" in last_line(capsys)
    status = json.loads((tmp_path / "classes" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)


def test_longer_texts_are_cut_counted_and_reported(labelled, tmp_path, capsys):
    labelled("train", [{"text": "a very long text " * 9, "label": "odd"}, {"text": "short", "label": "even"}] * 16)
    assert fit(tmp_path) == 0
    report = last_line(capsys)
    assert "finished at step 4" in report and "cut to 24 tokens" in report and "tokens lost" in report


def test_empty_texts_are_dropped_counted_and_reported(labelled, tmp_path, capsys):
    labelled(
        "train",
        [{"text": "", "label": "odd"}, {"text": "some", "label": "even"}, {"text": "more", "label": "odd"}] * 12,
    )
    assert fit(tmp_path) == 0
    assert "dropped (nothing to learn from)" in last_line(capsys)


@pytest.mark.parametrize(
    ("rows", "code", "message"),
    [
        ([{"text": "", "label": "odd"}, {"text": "", "label": "even"}], 1, "gives anything to learn from"),
        ([{"text": "one class only", "label": "odd"}] * 4, 2, "at least two labels, there are 1"),
        ([{"text": 5, "label": "odd"}, {"text": 6, "label": "even"}], 1, "not text"),
        ([{"text": "x", "label": None}, {"text": "y", "label": "odd"}], 1, "column 'label' is empty"),
    ],
)
def test_unusable_training_data(labelled, tmp_path, capsys, rows, code, message):
    labelled("train", rows)
    labelled("validation", rows)
    assert fit(tmp_path) == code
    assert message in last_line(capsys)


def test_unknown_labels_given_are_refused(labelled, tmp_path, capsys):
    assert fit(tmp_path, "--data.labels", '["even", "even"]') == 2
    assert "names a class twice" in last_line(capsys)


def test_test_split_that_is_not_there(labelled, tmp_path, capsys):
    assert fit(tmp_path) == 0
    assert main(["test", "--run", str(tmp_path / "classes")]) == 1
    assert "has no test split" in last_line(capsys)


def test_early_stopping_on_a_metric(labelled, tmp_path, capsys):
    flags = ["--trainer.max_steps", "400", "--trainer.validate_every", "2", "--trainer.patience", "2"]
    assert fit(tmp_path, *flags, "--model.optimizer.lr", "1e-9") == 0
    assert json.loads((tmp_path / "classes" / "status.json").read_text())["step"] < 20
