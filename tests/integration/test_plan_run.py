"""What `plan` says beside what runs do."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from lightning_nlp.__main__ import main

pytestmark = pytest.mark.slow
QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def test_the_quickstart_is_as_large_as_planned(samples, tmp_path, capsys):
    """Vocabulary, parameters and checkpoint, planned before there is a tokenizer."""
    assert main(["plan", "-c", str(QUICKSTART), "--trainer.accelerator", "cpu", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    flags = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.accelerator", "cpu"]
    assert main(["fit", "-c", str(QUICKSTART), *flags, "--root", str(tmp_path), "--name", "run"]) == 0
    (file,) = (tmp_path / "run" / "checkpoints").glob("*.ckpt")
    assert planned["checkpoint"] == pytest.approx(file.stat().st_size, rel=0.02)
    import torch

    state = torch.load(file, weights_only=True)
    assert sum(weight.numel() for weight in state["state_dict"].values()) == sum(planned["parameters"].values())
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["tokens"] == planned["tokens_per_step"]


RECIPES = sorted(QUICKSTART.parent.glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_can_be_planned(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path))
    assert main(["plan", "-c", str(recipe), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["flops_per_token"]["palm"] >= plan["flops_per_token"]["causal"] > 6 * plan["parameters"]["attention"]
    assert plan["memory"]["activations"] > 0 and not any(tmp_path.iterdir())


def test_measured_steps(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "scratch").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main(["plan", "-c", str(tiny), "--measure", "3", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    measured = plan["measured"]
    assert 0 < measured["step_seconds"] < 30 and measured["memory"] > 100e6
    assert measured["tokens"] == plan["tokens_per_step"]
    assert plan["seconds"] == plan["steps"] * measured["step_seconds"]
    assert sorted(tmp_path.rglob("*")) == before
