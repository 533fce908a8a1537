"""Where a sweep is kept: it is found from anywhere, under another name too, and deleted as a whole or not at all."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sweeping import outcome, process, results, run, starts, sweep, until, write

from lightning_nlp.sweeps import keys
from lightning_nlp.sweeps.claims import Claims

ONE = {"lr": {"values": [0.1]}}


def test_a_relative_storage_is_that_of_the_beginning_wherever_a_command_runs(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(home)
    found = run(tmp_path, parameters=ONE, storage="mine.db")
    monkeypatch.chdir(elsewhere)
    assert outcome(results(tmp_path / "sweeps/toy")) == outcome(found) != {}
    assert sweep("resume", write(tmp_path, parameters=ONE, storage="mine.db"), "--root", tmp_path / "sweeps") == 0
    assert not list(elsewhere.iterdir()) and set(starts(tmp_path / "sweeps/toy").values()) == {1}


def test_a_directory_that_was_renamed_is_the_same_sweep(tmp_path):
    found = run(tmp_path, parameters=ONE)
    (tmp_path / "sweeps/toy").rename(tmp_path / "sweeps/other")
    assert outcome(results(tmp_path / "sweeps/other")) == outcome(found) != {}


def kept(path: Path) -> dict[str, bytes]:
    """All files of a sweep, but for those that SQLite tidies up when it likes."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith("study.db")]
    return {str(file): file.read_bytes() for file in files}


REFUSED = (
    ({}, ["--parallel", 0], "--parallel must be at least 1, not 0"),
    ({"launcher": {"gpus_per_trial": 2}}, [], "launcher: 1 trials at once with 2 GPUs each need 2, this machine has 1"),
    ({"program": ["pyton-not-there"]}, [], "program: there is no 'pyton-not-there' that can be run"),
    ({"storage": "shared.db"}, [], "the study 'toy' in the storage is of another sweep"),
)


def test_what_is_refused_has_deleted_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = run(tmp_path, parameters=ONE)
    other = write(tmp_path, parameters={"lr": {"values": [9.0]}}, storage="shared.db")
    assert sweep("run", other, "--root", "others") == 0
    before = kept(tmp_path / "sweeps/toy")
    for changes, flags, line in REFUSED:
        path = write(tmp_path, **{"parameters": ONE, **changes})
        capsys.readouterr()
        assert sweep("run", path, "--root", tmp_path / "sweeps", "--overwrite", *flags) == 2
        assert line in capsys.readouterr().err and kept(tmp_path / "sweeps/toy") == before
    assert outcome(results(tmp_path / "sweeps/toy")) == outcome(found) != {}


def test_a_sweep_at_work_is_not_overwritten(tmp_path, capsys):
    storage = str(tmp_path / "shared.db")
    path = write(tmp_path, parameters={**ONE, "end": {"value": "hang"}}, storage=storage)
    command = ("run", path, "--root", tmp_path / "sweeps", "--overwrite")
    worker = process(*command)
    until(lambda: starts(tmp_path / "sweeps/toy"))
    assert sweep(*command) == 2
    assert f"sweep '{tmp_path / 'sweeps/toy'}' is being run: stop it first" in capsys.readouterr().err
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 143 and starts(tmp_path / "sweeps/toy")


def test_starting_anew_forgets_a_study_that_is_kept_elsewhere_too(tmp_path, capsys):
    storage = str(tmp_path / "shared.db")
    run(tmp_path, parameters=ONE, storage=storage)
    path = write(tmp_path, parameters={"lr": {"values": [0.5]}}, storage=storage)
    assert sweep("run", path, "--root", tmp_path / "sweeps", "--overwrite") == 0
    found = results(tmp_path / "sweeps/toy")
    assert [(each.settings["lr"], each.state) for each in found.configurations] == [(0.5, "done")]
    assert set(starts(tmp_path / "sweeps/toy").values()) == {1}
    assert not [key for key in Claims(create_engine(f"sqlite:///{storage}"), "toy").owners() if key > 0]


def test_workers_of_other_machines_are_waited_for_before_their_study_is_deleted(tmp_path, capsys):
    storage = str(tmp_path / "shared.db")
    launcher = {"heartbeat": "0.2s"}
    run(tmp_path, parameters=ONE, storage=storage, launcher=launcher)
    claims = Claims(create_engine(f"sqlite:///{storage}"), "toy")
    assert claims.take(7, "elsewhere:1:abc")
    path = write(tmp_path, parameters=ONE, storage=storage, launcher=launcher)
    command = ("run", path, "--root", tmp_path / "sweeps", "--overwrite")
    died = threading.Event()

    def live() -> None:
        while not died.wait(0.1):
            claims.beat("elsewhere:1:abc")

    living = threading.Thread(target=live)
    living.start()
    try:
        assert sweep(*command) == 2 and "is being run" in capsys.readouterr().err
    finally:
        died.set()
        living.join()
    assert sweep(*command) == 0 and 7 not in claims.owners()


@pytest.mark.parametrize("verb", ["worker", "slurm"])
def test_whoever_makes_a_sweep_checks_its_keys_first(verb, tmp_path, monkeypatch, capsys):
    wrong = {"code": 2, "output": "", "error": "unknown key"}
    monkeypatch.setattr(keys, "ask", lambda commands, cwd: [wrong] * len(commands))
    (tmp_path / "base.yaml").write_text("{}")
    path = write(
        tmp_path, program=None, base=[str(tmp_path / "base.yaml")], parameters=ONE, storage="postgresql://nowhere/db"
    )
    assert sweep(verb, path, "--root", tmp_path / "sweeps") == 2
    assert "base: unknown key" in capsys.readouterr().err and not (tmp_path / "sweeps").exists()


def test_a_program_that_is_gone_is_one_line(tmp_path, capsys):
    program = tmp_path / "mine.sh"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    run(tmp_path, code=1, program=[str(program)], parameters=ONE)
    program.unlink()
    assert sweep("resume", tmp_path / "sweeps/toy", "--retry_failed") == 2
    assert f"program: '{program}' cannot be started: No such file" in capsys.readouterr().err
