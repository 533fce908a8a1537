"""Records of trials: what has ended stays as it ended, wherever it is read."""

from __future__ import annotations

import pytest
from sweeping import outcome, results, run, starts, sweep, twisted

from lightning_nlp.sweeps import directory, ledger, records, running
from lightning_nlp.sweeps.ledger import Trial

ONE = {"parallel": 1, "grace": "5s"}
TWO = {"values": [1, 2], "role": "replicate"}


STOP = "if 'seed=2' in flags: os.kill(os.getppid(), signal.SIGTERM)"
"""The second replicate stops the sweep, as Ctrl-C would."""


def test_a_replicate_that_failed_is_not_run_again_after_a_stop(tmp_path):
    program = twisted(tmp_path, "if 'seed=1' in flags: sys.exit('no luck')", STOP)
    settings = {"program": program, "parameters": {"lr": {"values": [0.1]}, "seed": TWO}, "launcher": ONE}
    before, _ = run(tmp_path, code=143, **settings).trials
    assert (before.state, before.reason) == ("failed", "no luck")
    twisted(tmp_path)
    path = tmp_path / "sweeps/toy"
    assert sweep("resume", path) == 1
    failed, done = results(path).trials
    assert failed == before and done.state == "done" and len(done.attempts) == 2

    assert sweep("resume", path, "--retry_failed") == 0
    mended, kept = results(path).trials
    assert mended.state == "done" and len(mended.attempts) == 2 and mended.reason == ""
    assert kept == done and [each.state for each in results(path).configurations] == ["done"]


def test_what_failed_is_still_failed_when_its_configuration_is_stopped_early(tmp_path):
    parameters = {"lr": {"values": [1e-2, 1.0]}, "seed": TWO, "steps": {"value": 8}, "sleep": {"value": 0.05}}
    crash = "if 'lr=1.0' in flags and 'seed=1' in flags: sys.argv.append('--end=crash')"
    later = "if 'lr=1.0' in flags and 'seed=2' in flags: time.sleep(1)"
    stopping = {"type": "asha", "min_iter": 2, "eta": 2}
    program = twisted(tmp_path, crash, later)
    found = run(tmp_path, program=program, parameters=parameters, early_terminate=stopping)
    assert [each.state for each in found.configurations] == ["done", "pruned"]
    failed, pruned = found.configurations[1].trials
    assert (failed.state, failed.kind, failed.value) == ("failed", "crash", None) and "wrong shape" in failed.reason
    assert (pruned.state, pruned.step) == ("pruned", 2)
    assert "wrong shape" in (tmp_path / "sweeps/toy/report.md").read_text()


def test_what_another_machine_did_is_not_done_again(tmp_path):
    """The trials' directories are away, as on a machine that shares the database alone."""
    settings = {"parameters": {"lr": {"values": [0.1]}, "seed": TWO}, "launcher": ONE}
    found = run(tmp_path, code=143, program=twisted(tmp_path, STOP), **settings)
    path = tmp_path / "sweeps/toy"
    (path / "trials").rename(tmp_path / "elsewhere")
    assert outcome(results(path)) == outcome(found)
    twisted(tmp_path)
    assert sweep("resume", path) == 0
    assert list(starts(path)) == [found.trials[1].trial]
    assert [trial.state for trial in results(path).trials] == ["done", "done"]
    assert results(path).trials[0] == found.trials[0]


def test_what_is_tried_again_elsewhere_is_not_failed_here(tmp_path):
    settings = {"parameters": {"lr": {"values": [0.1]}}, "launcher": ONE}
    run(tmp_path, code=1, program=twisted(tmp_path, "sys.exit(1)"), **settings)
    path = tmp_path / "sweeps/toy"
    opened = directory.find(path, path)
    (before,) = ledger.read_all(path)
    records.put_back(opened, running.open_study(opened))
    ledger.write(opened.directory.trial(before.trial), before)  # on this machine nobody has heard of it
    assert [trial.state for trial in results(path).trials] == ["waiting"]


@pytest.mark.parametrize(
    ("here", "there", "wanted"),
    [
        (None, None, None),
        ("done", None, "here"),
        (None, "done", "there"),
        ("running", "done", "there"),
        ("failed", "running", "here"),
        ("running", "running", "here"),
        ("running 1", "waiting 2", "there"),
        ("failed 1", "waiting 1 again", "there"),
        ("done 2 again", "waiting 1 again", "here"),
    ],
)
def test_of_two_records_the_later_counts(here, there, wanted, tmp_path):
    def record(words: str) -> Trial:
        state, attempts, again = (*words.split(), "", "")[:3]
        return Trial("t", "c", 0, {}, state=state, attempts=[{}] * int(attempts or 1), retried=bool(again))

    if here is not None:
        ledger.write(tmp_path, record(here))
    found = ledger.latest(tmp_path, None if there is None else record(there).as_dict())
    assert found == {None: None, "here": here and record(here), "there": there and record(there)}[wanted]
