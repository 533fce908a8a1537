"""Sweeps whose trials are real runs of `fit`."""

from __future__ import annotations

import pytest
import yaml

from lightning_nlp.__main__ import main
from lightning_nlp.cli.sweep_probe import answer
from lightning_nlp.sweeps import directory, keys, running
from lightning_nlp.sweeps.results import collect
from tests.integration import runs

pytestmark = pytest.mark.slow


def write(path, tiny, **changes):
    content = {
        "name": "real",
        "method": "grid",
        "metric": {"name": "val/loss"},
        "base": [str(tiny)],
        "parameters": {
            "model.optimizer.lr": {"values": [1e-3, 1e-2]},
            "model.backbone.d_model": {"value": 32},
            "model.backbone.n_heads": {"expr": "d // 16", "vars": {"d": "model.backbone.d_model"}},
            "trainer.max_steps": {"value": 2},
            "trainer.validate_every": {"value": 2},
        },
        "launcher": {"parallel": 2, "cores": 1},
        **changes,
    }
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def asked_inside(monkeypatch):
    """The parser of this process answers: its libraries are imported already."""
    monkeypatch.setattr(keys, "ask", lambda commands, cwd: [answer(each) for each in commands])


def test_trials_are_runs_and_the_best_is_ready_to_fit(tmp_path, tiny, capsys):
    sweep = write(tmp_path / "sweep.yaml", tiny)
    assert main(["sweep", "run", str(sweep), "--root", str(tmp_path)]) == 0
    assert "best: model.optimizer.lr = " in capsys.readouterr().out
    opened = directory.find(tmp_path / "real", tmp_path)
    found = collect(opened, running.open_study(opened))
    assert [each.state for each in found.configurations] == ["done", "done"]
    for trial in found.trials:
        run = opened.directory.trial(trial.trial)
        config = yaml.safe_load((run / "config.fit.yaml").read_text())["model"]["init_args"]
        assert config["optimizer"]["lr"] == trial.settings["model.optimizer.lr"] and config["backbone"]["n_heads"] == 2
        assert runs.lines(run)[-1]["val/loss"] == trial.value and trial.step == 2
    best = found.ranked()[0].trials[0]
    config = yaml.safe_load((tmp_path / "real/best.yaml").read_text())
    assert config["model"]["init_args"]["optimizer"]["lr"] == best.settings["model.optimizer.lr"]
    again = runs.inside("fit", "-c", tmp_path / "real/best.yaml", "--root", tmp_path, "--name", "again")
    assert "finished at step 2" in again[1]
    assert runs.lines(tmp_path / "again")[-1]["val/loss"] == best.value


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"parameters": {"model.optimizer.lrr": {"values": [1, 2]}}}, "parameters.model.optimizer.lrr = 1: unknown key 'model.optimizer.lrr'; did you mean 'model.optimizer.lr'?"),
        ({"parameters": {"model.optimizer.lr": {"values": [0.1, "fast"]}}}, "parameters.model.optimizer.lr = \"fast\": model.optimizer.lr must be float, got 'fast'"),
        ({"method": "list", "parameters": {}, "trials": [{"trainer.max_steps": "two"}]}, "trials[0].trainer.max_steps = \"two\": trainer.max_steps must be int"),
    ],
)  # fmt: skip
def test_keys_and_values_are_checked_before_the_first_trial(changes, line, tmp_path, tiny, capsys, asked_inside):
    sweep = write(tmp_path / "sweep.yaml", tiny, **changes)
    assert main(["sweep", "run", str(sweep), "--root", str(tmp_path)]) == 2
    assert line in capsys.readouterr().err and not (tmp_path / "real").exists()


def test_a_base_that_is_wrong_is_said_to_be(tmp_path, tiny, capsys, asked_inside):
    tiny.write_text(tiny.read_text().replace("n_layers", "n_layer"))
    assert main(["sweep", "run", str(write(tmp_path / "sweep.yaml", tiny)), "--root", str(tmp_path)]) == 2
    assert "lightning-nlp: error: base: unknown key 'model.backbone.n_layer'" in capsys.readouterr().err
