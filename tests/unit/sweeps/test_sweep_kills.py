"""Kills of trials, of the sweep, of both: the ledger ends as that of a sweep that was left alone."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from sweeping import outcome, process, results, run, starts, sweep, until, write

from lightning_nlp.sweeps.presence import processes_of

pytestmark = pytest.mark.slow
SLOW = {
    "parameters": {"lr": {"values": [1e-2, 3e-2, 1e-1]}, "steps": {"value": 8}, "sleep": {"value": 0.1}},
    "launcher": {"parallel": 1, "grace": "5s", "heartbeat": "1s"},
}
STOPPED_EARLY = {**SLOW, "early_terminate": {"type": "asha", "min_iter": 2, "eta": 2}}


def alive(path: Path) -> list[int]:
    """Processes of trials of a sweep."""
    return [pid for trial in path.glob("trials/*") for pid in processes_of(trial)]


def lines(path: Path) -> int:
    """Steps that were done in a sweep so far."""
    return sum(len(file.read_text().splitlines()) for file in path.glob("trials/*/metrics.jsonl"))


def steps_of(path: Path) -> dict[str, list[int]]:
    """Steps in the order in which each trial wrote them."""
    return {
        file.parent.name: [json.loads(line)["step"] for line in file.read_text().splitlines()]
        for file in path.glob("trials/*/metrics.jsonl")
    }


KINDS = ("both", "controller", "trial", "both", "controller")


@pytest.mark.parametrize(("settings", "kinds"), [(SLOW, KINDS[:3]), (STOPPED_EARLY, KINDS)], ids=["grid", "asha"])
def test_any_kills_end_in_the_same_ledger(settings, kinds, tmp_path):
    clean = outcome(run(tmp_path, "clean", **settings))
    path, root = write(tmp_path, "killed", **settings), tmp_path / "sweeps"
    killed, draw = root / "killed", random.Random(3)
    verb, kills = "run", 0
    for kind in kinds:
        worker = process(verb, path, "--root", root)
        verb = "resume" if (killed / "sweep.json").exists() else verb
        wanted = lines(killed) + draw.randint(2, 4)
        until(lambda w=wanted, p=worker: lines(killed) >= w or p.poll() is not None)
        verb = "resume"
        if worker.poll() is not None:
            break
        time.sleep(draw.random() * 0.1)
        if kind in ("trial", "both"):
            for pid in alive(killed):
                os.kill(pid, signal.SIGKILL)
        if kind in ("controller", "both"):
            worker.kill()
            worker.wait()
            until(lambda: not alive(killed))  # trials notice that their sweep died, save and leave
        else:
            assert worker.wait(60) == 0
        kills += 1
    assert kills >= 2
    assert sweep("resume", path, "--root", root) == 0
    assert outcome(results(killed)) == clean
    for trial, steps in steps_of(killed).items():  # each goes on from its checkpoint: at most one step is done again
        assert all(later - step in (0, 1) for step, later in itertools.pairwise(steps)), (trial, steps)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_trials_save_and_leave(number, code, tmp_path):
    path, root = write(tmp_path, **SLOW), tmp_path / "sweeps"
    worker = process("run", path, "--root", root)
    until(lambda: lines(root / "toy") >= 2)
    worker.send_signal(number)
    out, _ = worker.communicate(timeout=60)
    assert worker.returncode == code and not alive(root / "toy")
    assert "stopping: trials save and leave" in out
    assert f"stopped: go on with `lightning-nlp sweep resume {root / 'toy'}`" in out
    (trial,) = (trial for trial in results(root / "toy").trials if trial.attempts)
    assert trial.state == "waiting" and trial.attempts[-1]["kind"] == "stopped"
    assert sweep("resume", root / "toy") == 0
    assert {each.state for each in results(root / "toy").configurations} == {"done"}
    assert steps_of(root / "toy")[trial.trial] == list(range(1, 9))


def test_what_does_not_listen_is_ended_before_its_trial_goes_on(tmp_path):
    parameters = {"end": {"values": ["stubborn"]}}
    path, root = write(tmp_path, parameters=parameters, launcher={"grace": "1s", "timeout": "4s"}), tmp_path / "sweeps"
    worker = process("run", path, "--root", root)
    until(lambda: lines(root / "toy") >= 2)
    worker.kill()
    worker.wait()
    time.sleep(0.3)
    assert alive(root / "toy")  # it ignores the signal that came with the death of its sweep
    assert sweep("resume", root / "toy") == 0
    assert not alive(root / "toy")
    (trial,) = results(root / "toy").trials
    assert [attempt["kind"] for attempt in trial.attempts] == ["lost", "done"]
    assert steps_of(root / "toy")[trial.trial] == [1, 2, 3, 4]


def test_one_controller_at_a_time_and_workers_may_join(tmp_path, capsys):
    many = {"lr": {"values": [0.01 * number for number in range(1, 9)]}, "sleep": {"value": 0.1}}
    path, root = write(tmp_path, **{**SLOW, "parameters": many}), tmp_path / "sweeps"
    first = process("run", path, "--root", root)
    until(lambda: lines(root / "toy") >= 1)
    assert sweep("resume", root / "toy") == 2
    assert f"sweep 'toy' is being run by process {first.pid} on " in capsys.readouterr().err
    assert sweep("worker", root / "toy") == 0
    out, _ = first.communicate(timeout=60)
    assert first.returncode == 0, out
    found = results(root / "toy")
    assert {each.state for each in found.configurations} == {"done"} and len(found.configurations) == 8
    assert set(starts(root / "toy").values()) == {1}
    assert len({trial.attempts[0]["worker"] for trial in found.trials}) == 2


def test_a_worker_takes_over_what_a_dead_one_ran(tmp_path):
    long = {**SLOW["parameters"], "steps": {"value": 20}, "sleep": {"value": 0.2}}
    path, root = write(tmp_path, **{**SLOW, "parameters": long}), tmp_path / "sweeps"
    first = process("run", path, "--root", root)
    until(lambda: (root / "toy/study.db").exists() and alive(root / "toy"))
    second = process("worker", root / "toy")
    until(lambda: len(alive(root / "toy")) == 2)
    first.kill()
    first.wait()
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0, out
    found = results(root / "toy")
    assert {each.state for each in found.configurations} == {"done"}
    lost = [trial for trial in found.trials if len(trial.attempts) == 2]
    assert len(lost) == 1 and lost[0].attempts[0]["kind"] == "lost"
