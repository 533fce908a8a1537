"""How a sweep ends before its time: what had not begun is not begun, what runs saves and leaves."""

from __future__ import annotations

import os
import signal

import pytest
from sweeping import process, results, run, starts, write

from lightning_nlp.sweeps.launcher import LocalLauncher
from lightning_nlp.sweeps.study import Study

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
