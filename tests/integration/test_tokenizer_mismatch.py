"""A run whose tokenizer was exchanged for another of the same size is refused by everything that would use it."""

from __future__ import annotations

import shutil

import pytest

from lightning_nlp.__main__ import main

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "command",
    [
        ["fit", "--trainer.max_steps", "12"],
        ["predict"],
        ["test"],
        ["generate", "--prompt", "a"],
        ["export", "--output", "exported"],
    ],
    ids=lambda command: command[0],
)
def test_another_tokenizer_of_the_same_size_is_refused(command, trained, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    text = (run / "tokenizer.json").read_text()
    swapped = text.replace('"a":', '"TEMP":').replace('"b":', '"a":').replace('"TEMP":', '"b":')
    (run / "tokenizer.json").write_text(swapped)
    monkeypatch.chdir(tmp_path)
    assert main([command[0], "--run", str(run), *command[1:]]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert (
        error.startswith("lightning-nlp: error: ") and "is not the tokenizer this checkpoint was trained with" in error
    )
    assert not (tmp_path / "exported").exists()
