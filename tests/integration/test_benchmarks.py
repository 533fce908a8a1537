"""The benchmarks run, alternate, and write what they print; their arithmetic is right."""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path

import pytest
import torch

from benchmarks import harness
from benchmarks.peers import Shape, nano, ours

KEYS = {"row", "peer", "ratio", "low", "high", "floor", "aim", "unit", "note"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [("train_step", 2), ("attention", 2), ("loss", 2), ("fit", 1), ("overhead", 2), ("reading", 3), ("data", 4)],
)
def test_quick_runs_write_their_rows(name, rows, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    module = importlib.import_module(f"benchmarks.{name}")
    module.main(["--quick", "--json", str(tmp_path / "rows.json")])
    written = json.loads((tmp_path / "rows.json").read_text())
    printed = capsys.readouterr().out
    assert len(written) == rows
    for row in written:
        assert row.keys() == KEYS
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
        assert row["row"] in printed
    assert not list(tmp_path.glob("tmp*"))  # contestants clean up


def test_the_interval_of_medians():
    assert harness.interval([2.0] * 9) == (2.0, 2.0, 2.0)
    middle, low, high = harness.interval([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8])
    assert middle == 1.4
    assert 1.0 < low < 1.3 and 1.5 < high < 1.8  # exact: 1.2 and 1.6, orders 2 and 8 of 9 hold 96 %


VERDICTS = [
    ({"low": 1.06, "high": 1.2}, "passes"),
    ({"low": 1.0, "high": 1.2}, "open"),
    ({"low": 0.9, "high": 1.0}, "below"),
    ({"low": 1.0, "high": 1.05, "smaller": True}, "passes"),
    ({"low": 1.0, "high": 1.2, "smaller": True}, "open"),
    ({"low": 1.1, "high": 1.2, "smaller": True}, "above"),
    ({"low": 1.0, "high": 1.0, "floor": None}, ""),
]


@pytest.mark.parametrize(("values", "verdict"), VERDICTS)
def test_a_floor_passes_when_the_interval_lies_above_it(values, verdict):
    assert harness.Row("row", "peer", 1.05, **{"floor": 1.06, "aim": 1.2, **values}).verdict == verdict


def test_ratios_are_taken_round_by_round():
    (row,) = harness.compare({"a": [1.0, 2.0, 4.0], "b": [2.0, 2.0, 4.0]}, "a", "b", "row", "peer", floor=1.0, aim=2.0)
    assert (row.ratio, row.low, row.high) == (1.0, 1.0, 2.0)
    assert harness.compare({"a": [1.0]}, "a", "missing", "row", "peer") == []


@pytest.mark.slow
def test_a_contestant_that_fails_is_shown_with_its_reason(tmp_path):
    (tmp_path / "broken.py").write_text("raise ValueError('no such model')")
    with pytest.raises(RuntimeError, match="no such model"):
        harness.alternate({"broken": [str(Path(tmp_path / "broken.py"))]})


def test_the_peer_is_our_model():
    """With the same weights nanoGPT's model gives our loss: the same shape is compared."""
    shape = Shape(layers=2, width=32, heads=2, length=16, vocabulary=50, batch=2)
    (theirs, their_loss), (mine, my_loss) = nano(shape), ours(shape)
    source = dict(theirs.named_parameters())
    names = {
        "tokens.weight": "token_embedding.weight",
        "positions.weight": "decoder.positions.embedding.weight",
        "norm.weight": "decoder.final_norm.weight",
    }
    inner = {
        "first_norm": "attention_norm",
        "attention.project_in": "attention.query_key_value",
        "attention.project_out": "attention.output",
        "second_norm": "feedforward_norm",
        "up": "feedforward.up",
        "down": "feedforward.down",
    }
    for layer in range(shape.layers):
        for old, new in inner.items():
            names[f"layers.{layer}.{old}.weight"] = f"decoder.layers.{layer}.{new}.weight"
    mine.load_state_dict({new: source[old].detach() for old, new in names.items()})
    assert sum(p.numel() for p in mine.parameters()) == sum(p.numel() for p in theirs.parameters())
    tokens, labels = torch.randint(50, (2, shape.batch, shape.length))
    torch.testing.assert_close(my_loss(mine, tokens, labels), their_loss(theirs, tokens, labels))
