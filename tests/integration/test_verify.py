"""`lightning-nlp verify resume`: says so when a configuration resumes exactly, and says where when it does not."""

from __future__ import annotations

import json
import re

import pytest

from lightning_nlp.__main__ import main
from lightning_nlp.cli import verify
from lightning_nlp.verification.history import EXACT, Recomputed, difference, history, steps_back
from tests.integration import runs


@pytest.fixture
def config(tmp_path, corpus):
    return runs.write_config(tmp_path / "tiny.yaml", corpus)


@pytest.mark.slow
def test_an_exact_configuration_is_proved_exact(config, tmp_path, capsys):
    work = tmp_path / "work"
    settings = ["--data.packing", "first_fit", "--data.batch_ramp", "{0: 4, 5: 8}", "--data.global_batch_size", "8"]
    args = ["verify", "resume", "-c", str(config), "--kills", "2", "--steps", "12", "--work", str(work), *settings]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert "2 stops, 0 steps lost, 0 samples lost or repeated, losses" in printed
    assert "bit-equal" in printed
    stopped = work / "stopped-0"
    assert history(stopped) == history(work / "clean")
    assert len(list(stopped.parent.iterdir())) >= 2


@pytest.mark.slow
def test_other_numbers_of_ranks_see_the_same_examples(config, tmp_path, capsys):
    args = ["verify", "resume", "-c", str(config), "--kills", "2", "--steps", "12", "--devices", "2", "1"]
    mixture = {
        "sources": {"a": {"path": str(tmp_path / "corpus")}, "b": {"path": str(tmp_path / "corpus"), "take": 40}},
        "rates": "equal",
    }
    runs.write_corpus(tmp_path / "corpus")
    args += ["--data.path", "null", "--data.mixture", json.dumps(mixture)]
    assert main(args) == 0
    assert "the same examples and tokens at every step with 2 and 1 ranks in turn" in capsys.readouterr().out


def write(run, rows):
    run.mkdir()
    text = "\n".join(json.dumps(row) for row in rows)
    (run / "metrics.jsonl").write_text(text + '\n{"step": 9, "train/lo')  # cut short by a kill
    return run


STEPS = [
    {"step": step, "ids": f"{step:03x}", "tokens": step * 8, "train/loss": 1 / step, "time": step} for step in (1, 2, 3)
]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({}, None),
        ({"time": 99}, None),
        ({"train/loss": 0.5000000000000001}, "step 2: train/loss is 0.5000000000000001 instead of 0.5 .the same"),
        ({"ids": "abc", "train/loss": 7.0}, "step 2: ids is 'abc' instead of '002' .other examples were read"),
        ({"val/loss": 1.0}, "step 2: val/loss is 1.0 instead of None"),
    ],
    ids=str,
)
def test_the_first_difference_and_its_cause(tmp_path, change, text):
    clean = write(tmp_path / "clean", STEPS)
    other = write(tmp_path / "other", [STEPS[0], {**STEPS[1], **change}, STEPS[2]])
    found = difference(history(clean), history(other), EXACT)
    assert (found is None) == (text is None)
    assert found is None or re.match(text, found)


def test_steps_done_again_must_be_the_same(tmp_path):
    again = write(tmp_path / "again", [*STEPS, *STEPS[1:]])
    assert steps_back(again) == [2]
    assert len(history(again)) == 9
    other = write(tmp_path / "other", [*STEPS, {**STEPS[2], "train/loss": 0.3}])
    with pytest.raises(Recomputed, match=r"step 3 train/loss was 0\.3333333333333333, recomputed 0\.3"):
        history(other)


@pytest.mark.slow
def test_a_difference_fails_and_keeps_the_runs(config, tmp_path, capsys, monkeypatch):
    real = history

    def doctored(run, names=EXACT):
        found = real(run, names)
        return found if run.name == "clean" else {**found, (5, "ids"): "0badf00d"}

    monkeypatch.setattr(verify, "history", doctored)
    work = tmp_path / "work"
    args = ["verify", "resume", "-c", str(config), "--kills", "1", "--steps", "8", "--work", str(work)]
    assert main(args) == 1
    printed = capsys.readouterr().out
    assert "NOT exact after 1 stops: stopped-0: step 5: ids is '0badf00d' instead of" in printed
    assert f"the runs are kept in {work}" in printed


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--kills", "0"], "--kills must be at least 1, not 0"),
        (["--devices", "0"], "--devices must be at least 1, not 0"),
        (["--kils", "3"], "unknown option '--kils'; did you mean '--kills'?"),
    ],
)
def test_mistakes(config, capsys, args, text):
    assert main(["verify", "resume", "-c", str(config), *args]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.slow
def test_a_configuration_that_fit_refuses(config, tmp_path, capsys):
    assert main(["verify", "resume", "-c", str(config), "--model.optimizer.lrr", "1"]) == 2
    assert "did you mean 'model.optimizer.lr'?" in capsys.readouterr().err
