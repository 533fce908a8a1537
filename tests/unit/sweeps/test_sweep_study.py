"""What workers share: claims that change hands once, decisions made once, choices that depend on no kill."""

from __future__ import annotations

import json
import sqlite3
import threading
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from sweeping import run, sweep, write

from lightning_nlp.errors import DataError
from lightning_nlp.sweeps import directory, storage
from lightning_nlp.sweeps.active import Run
from lightning_nlp.sweeps.claims import Claims, Owner
from lightning_nlp.sweeps.grammar import EarlyTerminate, parse_sweep
from lightning_nlp.sweeps.launcher import Ended
from lightning_nlp.sweeps.ledger import Trial
from lightning_nlp.sweeps.metrics import Curve
from lightning_nlp.sweeps.outcome import outcome
from lightning_nlp.sweeps.presence import Presence, is_dead
from lightning_nlp.sweeps.running import filesystem
from lightning_nlp.sweeps.stopping import JUDGED, judge, pruner
from lightning_nlp.sweeps.study import Study


@pytest.fixture
def claims(tmp_path):
    return Claims(sa.create_engine(f"sqlite:///{tmp_path / 'claims.db'}", connect_args={"timeout": 30}), "study")


def test_a_claim_is_taken_once_and_changes_hands_once(claims):
    won: list[str] = []

    def contend(worker: str, take) -> None:
        if take(worker):
            won.append(worker)

    def all_at_once(take) -> list[str]:
        won.clear()
        threads = [threading.Thread(target=contend, args=(f"w{number}", take)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return list(won)

    (first,) = all_at_once(lambda worker: claims.take(3, worker))
    assert claims.owners() == {3: Owner(first, 0)}
    (second,) = all_at_once(lambda worker: claims.take_over(3, Owner(first, 0), worker))
    assert claims.owners()[3].worker == second


def test_a_sign_of_life_keeps_a_claim(claims):
    assert claims.take(1, "a") and claims.beat("a") == {1}
    assert not claims.take_over(1, Owner("a", 0), "b")  # it beat meanwhile
    assert claims.take_over(1, Owner("a", 1), "b") and claims.beat("a") == set()
    claims.release(1, "a")  # not its own any more
    assert claims.owners()[1].worker == "b"
    claims.release(1, "b")
    assert claims.owners()[1].worker == "" and is_dead(Path("."), "") is True


def test_silence_is_counted_from_the_last_sign(claims):
    assert claims.silent_for(1, Owner("a", 0)) == 0.0 and claims.silent_for(1, Owner("a", 0)) > 0.0
    assert claims.silent_for(1, Owner("a", 1)) == 0.0


def test_a_worker_is_dead_when_its_lock_is_free(tmp_path):
    presence = Presence(tmp_path)
    assert is_dead(tmp_path, presence.name) is False
    presence.leave()
    assert is_dead(tmp_path, "elsewhere:1:abc") is None and not list((tmp_path / "workers").iterdir())


STOPPING = [
    EarlyTerminate("asha", min_iter=1, eta=2),
    EarlyTerminate("hyperband", min_iter=1, max_iter=8, eta=2),
    EarlyTerminate("median", min_iter=1, min_trials=1),
]


@pytest.mark.parametrize("stopping", STOPPING, ids=lambda each: each.type)
def test_a_decision_that_was_interrupted_is_made_again_alike(stopping):
    """A kill after the pruner has written its rung, before anybody heard of the decision."""

    def decisions(interrupted: bool) -> list[list[bool]]:
        study = optuna.create_study(study_name="same", pruner=pruner(stopping))
        found = []
        for number in range(6):
            trial, made = study.ask(), []
            for step in (1, 2, 4, 8):
                trial.report((number * 5) % 7 + 1 / step, step)
                if interrupted:
                    frozen = study._storage.get_trial(trial._trial_id)
                    trial.set_user_attr(JUDGED, {"step": step, "before": frozen.system_attrs})
                    trial.should_prune()
                made.append(judge(study, trial, step))
                assert judge(study, trial, step) == made[-1]  # asked again, as after a kill
                if made[-1]:
                    break
            study.tell(
                trial, state=optuna.trial.TrialState.PRUNED if made[-1] else None, values=None if made[-1] else 1.0
            )
            found.append(made)
        return found

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    clean = decisions(False)
    assert decisions(True) == clean and any(True in made for made in clean) and [False] * 4 in clean


def test_successive_halving_is_optunas(tmp_path):
    """Told one by one, decisions are those of the pruner in optuna's own loop."""
    stopping = EarlyTerminate("asha", min_iter=1, eta=3)
    ours, theirs = (optuna.create_study(pruner=pruner(stopping)) for _ in range(2))
    for number in range(9):
        mine, other = ours.ask(), theirs.ask()
        for step in (1, 3, 9):
            value = float((number * 4) % 9)
            mine.report(value, step)
            other.report(value, step)
            assert judge(ours, mine, step) == other.should_prune()


def small(**changes):
    content = {
        "method": "grid",
        "metric": {"name": "val/loss"},
        "program": ["true"],
        "parameters": {"a": {"values": [1, 2]}},
    }
    return parse_sweep({**content, **changes}, "small")


def test_a_locked_file_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "study.db"
    monkeypatch.setattr(storage, "BUSY", 0.2)
    Study(small(), f"sqlite:///{path}", {"base": "b"}, "b")
    holder = sqlite3.connect(path)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(DataError) as caught:
            found = Study(small(), f"sqlite:///{path}", {"base": "b"}, "b")
            with found.reachable():
                found.plan([{"a": 1}])
        assert str(caught.value) == f"storage 'sqlite:///{path}': database is locked (another process holds it)"
    finally:
        holder.close()


def test_what_was_claimed_when_the_database_was_lost_is_claimed_again(tmp_path, monkeypatch):
    found = Study(small(), f"sqlite:///{tmp_path / 'study.db'}", {"base": "b"}, "b")
    found.plan([{"a": 1}, {"a": 2}])
    with monkeypatch.context() as patch:
        patch.setattr(Study, "_claim", lambda self, trial: next(iter(())))
        with pytest.raises(StopIteration):
            found.next("me", set(), 60)
    claim = found.next("me", set(), 60)
    assert claim is not None and claim.settings == {"a": 1}
    other = found.next("me", {claim.key}, 60)
    assert other is not None and other.settings == {"a": 2}
    assert found.next("me", {claim.key, other.key}, 60) is None
    assert found.next("you", set(), 60) is None


def test_a_file_that_is_no_database_is_one_line(tmp_path, capsys):
    (tmp_path / "study.db").write_text("no database, " * 1000)
    path = write(tmp_path, storage=str(tmp_path / "study.db"))
    assert sweep("run", path, "--root", tmp_path / "sweeps") == 1
    assert capsys.readouterr().err.splitlines()[-1].endswith("file is not a database")


def test_importance_is_that_of_what_matters(tmp_path):
    parameters = {"lr": {"values": [1e-4, 1e-2]}, "note": {"values": ["a", "b", "c"]}, "steps": {"value": 1}}
    found = run(tmp_path, parameters=parameters)
    assert list(found.importances) == ["lr", "note"] and found.importances["lr"] > 0.9


@pytest.mark.parametrize(
    ("code", "oom", "kind"),
    [(-9, 0, "killed"), (-9, 1, "host_oom"), (137, 1, "host_oom"), (85, 0, "preempted"), (143, 0, "preempted"), (130, 0, "preempted"), (-15, 0, "preempted"), (86, 0, "stalled"), (2, 0, "configuration"), (1, 0, "crash"), (-11, 0, "crash"), (0, 0, "no_metric")],
)  # fmt: skip
def test_what_exit_codes_mean(code, oom, kind, tmp_path):
    assert outcome(Ended(code, 1.0, 1.0, oom), Curve("val/loss"), small().metric, tmp_path).kind == kind


def test_memory_of_a_device_is_no_matter_of_the_host(tmp_path):
    (tmp_path / "output.log").write_text("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n")
    found = outcome(Ended(1, 1.0, 1.0), Curve("val/loss"), small().metric, tmp_path)
    assert found.kind == "out_of_memory" and "2 GiB" in found.reason


def test_file_systems_are_told_apart(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nserver:/b {tmp_path}/net nfs4 rw 0 0\n")
    assert filesystem(tmp_path / "net/sweeps", mounts) == "nfs4" and filesystem(tmp_path / "network", mounts) == "ext4"


def test_a_decision_outlasts_a_stop_that_comes_with_it(tmp_path):
    """The sweep is stopped in the moment in which a trial turns out to be stopped early: it stays stopped early."""
    path = write(tmp_path, parameters={"lr": {"values": [0.1]}})
    opened = directory.create(path, tmp_path / "sweeps")
    trial = Trial("abc", "cell", 0, {"lr": 0.1}, attempts=[{"from_step": 0}])
    metrics = opened.directory.trial("abc") / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    metrics.write_text("".join(json.dumps({"step": step, "val/loss": 1.0 / step}) + "\n" for step in (1, 2, 3)))
    active_run = Run(opened, Trial("abc", "cell", 0, {"lr": 0.1}), lambda changed: None)
    active_run.trial = trial
    active_run.ask("stopped")
    active_run.prune(2)
    active_run.end(Ended(143, 1.0, 1.0))
    assert (trial.state, trial.step, trial.value) == ("pruned", 2, 0.5)
