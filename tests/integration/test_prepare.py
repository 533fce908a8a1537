"""`lightning-nlp prepare`, and runs for which shards appear and disappear: nothing shows but a line that says so."""

from __future__ import annotations

import re
import shutil

import pytest

from lightning_nlp.__main__ import main
from tests.integration import runs

MISTAKES = [
    (["-c", "{tiny}", "--workers", "0"], 2, "--workers must be at least 1, not 0"),
    (["-c", "{tiny}", "--data.max_lenght", "3"], 2, "max_lenght'; did you mean '"),
    (["-c", "{tiny}", "--data.prepared", "none"], 2, "prepare: with data.prepared none, no run would use the shards"),
    (["-c", "{tiny}", "--output", "/proc/none"], 1, "cannot write '/proc/none/"),
    ([], 2, "the following arguments are required: -c/--config"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES)
def test_a_mistake_is_one_line(arguments, code, message, tiny, capfd):
    assert main(["prepare", *[part.format(tiny=tiny) for part in arguments]]) == code
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("lightning-nlp: error: ") and message in line


@pytest.mark.slow
def test_shards_come_and_go_during_a_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "data"))
    runs.inside("fit", "-c", tiny, "--run", tmp_path / "clean", "--trainer.max_steps", "30")
    run = tmp_path / "run"
    steps = {10: False, 20: True, 30: False}
    for last, prepared in steps.items():
        if prepared:
            printed, _ = runs.inside("prepare", "-c", tiny, "--workers", "2")
            assert re.search(r"train +300 documents", printed)
        else:
            shutil.rmtree(tmp_path / "data", ignore_errors=True)
        _, said = runs.inside("fit", "-c", tiny, "--run", run, "--trainer.max_steps", last)
        assert ("using prepared shards" in said) == prepared
    clean, found = runs.history(tmp_path / "clean"), runs.history(run)
    # The learning rate follows the steps that were asked for; what was read does not.
    data = {key: value for key, value in clean.items() if key[1] in ("ids", "tokens")}
    assert data == {key: value for key, value in found.items() if key[1] in ("ids", "tokens")}
    assert len(data) >= 60


@pytest.mark.slow
def test_a_run_with_shards_equals_one_without(tiny, tmp_path):
    runs.inside("fit", "-c", tiny, "--run", tmp_path / "without", "--trainer.max_steps", 12, "--data.prepared", "none")
    shards = ("--data.prepared", tmp_path / "shards")
    runs.run("prepare", "-c", tiny, "--workers", "1", "--output", tmp_path / "shards")
    _, said = runs.inside("fit", "-c", tiny, "--run", tmp_path / "with", "--trainer.max_steps", 12, *shards)
    assert f"using prepared shards {tmp_path / 'shards'}/" in said
    assert runs.history(tmp_path / "with") == runs.history(tmp_path / "without")
    (tmp_path / "texts.txt").write_text("the cat\nsat on\n")
    _, said = runs.inside("predict", "--run", tmp_path / "with", "--input", tmp_path / "texts.txt")
    assert "predictions in" in said
