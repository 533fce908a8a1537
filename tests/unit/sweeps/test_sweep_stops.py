"""How a sweep ends before its time: what had not begun is not begun, what runs saves and leaves."""

from __future__ import annotations

import os
import signal

import pytest
import sqlalchemy as sa
from sweeping import process, results, run, starts, sweep, twisted, until, write

from lightning_nlp.sweeps import storage
from lightning_nlp.sweeps.launcher import LocalLauncher
from lightning_nlp.sweeps.study import Study

ONE = {"parallel": 1, "grace": "5s", "heartbeat": "1s"}
SEEDS = {"values": [1, 2, 3], "role": "replicate"}


def test_a_hopeless_sweep_waits_for_no_replicate_that_was_not_begun(tmp_path):
    path = write(tmp_path, parameters={"lr": {"values": [0.1, 0.2]}, "seed": SEEDS, "end": {"value": "nameless"}})
    worker = process("run", path, "--root", tmp_path / "sweeps")
    try:
        out, _ = worker.communicate(timeout=30)
    finally:
        worker.kill()
    assert worker.returncode == 1 and "the first configuration failed, the sweep stops: metric.name" in out
    states = [[trial.state for trial in each.trials] for each in results(tmp_path / "sweeps/toy").configurations]
    assert states[0] == ["failed"] * 3 and "waiting" in states[1]


@pytest.mark.parametrize("moment", ["asking", "starting"])
def test_a_signal_at_any_moment_lets_nothing_run_on(moment, tmp_path, monkeypatch):
    kind, name = (Study, "next") if moment == "asking" else (LocalLauncher, "start")
    original, told = getattr(kind, name), []

    def interrupted(self, *args, **kwargs):
        found = original(self, *args, **kwargs)
        if not told:
            told.append(os.kill(os.getpid(), signal.SIGTERM))
        return found

    monkeypatch.setattr(kind, name, interrupted)
    launcher = {"timeout": "5s", "grace": "2s"}  # what runs on ends so
    found = run(tmp_path, code=143, parameters={"lr": {"values": [0.1]}, "end": {"value": "hang"}}, launcher=launcher)
    (trial,) = found.trials
    assert trial.state == "waiting" and len(trial.attempts) == (moment == "starting")
    assert moment == "asking" or trial.attempts[0]["code"] in (143, -15)  # asked to save, not killed
    assert len(starts(tmp_path / "sweeps/toy")) <= len(trial.attempts)


@pytest.mark.parametrize("failures", [2, 1000])
def test_a_database_that_is_away_for_a_moment_costs_nothing_and_for_long_lets_trials_save(
    failures, tmp_path, monkeypatch, capsys
):
    """Every sign of life fails, from the moment in which the trial runs."""
    monkeypatch.setattr(storage, "WAITS", (0.05, 0.05, 0.05))
    original, left = sa.Engine.begin, tmp_path / "left"
    failed: list[int] = []

    def begin(self):
        if len(failed) < failures and list(tmp_path.glob("sweeps/toy/trials/*/metrics.jsonl")):
            failed.append(1)
            raise sa.exc.OperationalError("UPDATE", {}, Exception("server closed the connection"))
        return original(self)

    monkeypatch.setattr(sa.Engine, "begin", begin)
    program = twisted(tmp_path, f"import atexit; atexit.register(open, {str(left)!r}, 'w')")
    path = write(tmp_path, program=program, parameters={"lr": {"values": [0.1]}, "sleep": {"value": 0.3}})
    assert sweep("run", path, "--root", tmp_path / "sweeps") == (0 if failures == 2 else 1)
    assert len(failed) >= 2 and left.exists()  # it came to its end by itself: nobody killed it
    if failures == 2:
        assert [trial.state for trial in results(tmp_path / "sweeps/toy").trials] == ["done"]
    else:
        assert "server closed the connection" in capsys.readouterr().err


def test_nothing_is_said_to_run_when_nobody_runs_it(tmp_path):
    path = write(tmp_path, parameters={"lr": {"values": [0.1, 0.2]}, "end": {"value": "hang"}}, launcher=ONE)
    worker = process("run", path, "--root", tmp_path / "sweeps")
    until(lambda: starts(tmp_path / "sweeps/toy"))
    found = results(tmp_path / "sweeps/toy")
    assert [each.state for each in found.configurations] == ["running", "waiting"]
    assert found.counts() == {"running": 1, "waiting": 1}
    worker.kill()
    worker.wait()
    found = results(tmp_path / "sweeps/toy")
    assert [each.state for each in found.configurations] == ["waiting", "waiting"]
    assert found.counts() == {"waiting": 2}
