"""One grammar names the weights of a run: best, last, a step, a file, averages, moving averages."""

from __future__ import annotations

import json

import pytest

from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run.choice import choose
from lightning_nlp.run.weights import is_reference


@pytest.fixture
def directory(tmp_path):
    """Steps 10 to 50 with losses whose order is 30, 20, 50, 10 (40 has none)."""
    return published(tmp_path, {10: 4.0, 20: 2.0, 30: 1.0, 40: None, 50: 3.0})


def published(path, losses, ema=()):
    for step, loss in losses.items():
        (path / f"step-{step}.ckpt").write_bytes(b"data")
        digest = {"sha256": "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7", "bytes": 4}
        facts = {"step": step, "files": {".": digest}, "monitor": {"name": "val/loss", "mode": "min"}}
        facts |= {"metrics": {} if loss is None else {"val/loss": loss}, "ema": {"decay": 0.9} if step in ema else None}
        (path / f"step-{step}.json").write_text(json.dumps(facts))
    return path


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ("last", [50]),
        ("best", [30]),
        ("20", [20]),
        ("20@raw", [20]),
        ("average:last:1", [50]),
        ("average:last:3", [30, 40, 50]),
        ("average:best:3", [20, 30, 50]),
        ("average:50,10,50", [10, 50]),
    ],
)
def test_what_is_chosen(directory, asked, steps):
    choice = choose(directory, asked, pytest.fail)
    assert choice.steps == steps and choice.weights == "raw" and choice.averaged == asked.startswith("average")
    assert is_reference(choice.reference)
    said = f"average of {len(steps)} checkpoints: steps {', '.join(map(str, steps))}"
    assert str(choice) == (said if choice.averaged else f"step {steps[0]}")
    assert bool(choice.signature) == choice.averaged


def test_the_best_is_the_highest_where_the_run_says_so(directory):
    newest = json.loads((directory / "step-50.json").read_text())
    (directory / "step-50.json").write_text(json.dumps({**newest, "monitor": {"name": "val/loss", "mode": "max"}}))
    assert choose(directory, "best", pytest.fail).steps == [10]
    assert choose(directory, "average:best:2", pytest.fail).steps == [10, 50]
    assert choose(directory, "average:best:2", pytest.fail, monitor=("val/loss", "min")).steps == [20, 30]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("average:last:6", "needs 6 checkpoints, .* has 5 .*train with trainer.keep_last 6"),
        ("average:best:5", "needs 5 checkpoints with val/loss, .* has 4 .*trainer.keep_best 5"),
        ("average:last:0", "is no choice of checkpoints"),
        ("average:worst:2", "is no choice of checkpoints"),
        ("average:10,60", "no checkpoint of step 60"),
        ("7", r"no checkpoint of step 7 \(it has 10, 20, 30, 40, 50\)"),
        ("lest", "'lest' does not exist; did you mean 'last'"),
        ("last@emma", "after @ stands ema or raw, not 'emma'; did you mean 'ema'"),
        ("last@ema", "the checkpoint of step 50 has no moving average"),
    ],
)
def test_mistakes_are_one_line(directory, asked, message):
    with pytest.raises(ConfigError, match=message):
        choose(directory, asked, pytest.fail)


def test_damaged_checkpoints_are_passed_over_and_named(directory):
    (directory / "step-40.ckpt").write_bytes(b"dada")
    said: list[str] = []
    assert choose(directory, "average:last:3", said.append).steps == [20, 30, 50]
    assert "step 40 is damaged" in said[0] and (directory / "step-40.ckpt.damaged").exists()
    (directory / "step-20.ckpt").write_bytes(b"d")
    with pytest.raises(CheckpointError, match="step 20 is damaged"):
        choose(directory, "average:10,20", pytest.fail)


def test_a_run_with_moving_averages_is_used_with_them_unless_told_otherwise(tmp_path):
    published(tmp_path, {1: 3.0, 2: 2.0, 3: 1.0}, ema=(2, 3))
    assert choose(tmp_path, "best", pytest.fail).signature == "weights:ema"
    assert choose(tmp_path, "best@raw", pytest.fail).signature == ""
    assert choose(tmp_path, "average:last:2", pytest.fail).signature == "weights:average of 2 ema (2, 3)"
    assert choose(tmp_path, "average:last:3@raw", pytest.fail).signature == "weights:average of 3 (1, 2, 3)"
    with pytest.raises(ConfigError, match="step 1 has no moving average: give @raw"):
        choose(tmp_path, "average:last:3", pytest.fail)


def test_training_goes_on_from_one_checkpoint_as_it_was_saved(directory):
    assert choose(directory, "20", pytest.fail).to_resume("20") == str(directory / "step-20.ckpt")
    for asked in ("average:last:2", "average:last:1"):
        with pytest.raises(ConfigError, match="training goes on from one checkpoint"):
            choose(directory, asked, pytest.fail).to_resume(asked)


def test_no_checkpoint_at_all(tmp_path):
    assert choose(tmp_path, "last", pytest.fail) is None and choose(tmp_path, "best", pytest.fail) is None
    with pytest.raises(ConfigError, match="has 0 "):
        choose(tmp_path, "average:last:2", pytest.fail)


def test_a_file_without_a_manifest_is_taken_as_it_is(tmp_path):
    file = tmp_path / "theirs+1@home.ckpt"
    file.write_bytes(b"")
    choice = choose(tmp_path, str(file), pytest.fail)
    assert choice.newest.path == file and choice.weights == "auto"
