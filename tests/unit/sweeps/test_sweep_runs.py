"""Every method and every way to end, with a trial that takes no time."""

from __future__ import annotations

import json
import math

import pytest
import yaml
from sweeping import GRID, outcome, results, run, starts, sweep, write
from toy_trial import loss

from lightning_nlp.sweeps import ledger


def test_grid_runs_every_combination_once_and_says_so(tmp_path, capsys):
    found = run(tmp_path)
    assert [each.settings for each in found.configurations] == [
        {"lr": lr, "width": width} for lr in (1e-3, 1e-2) for width in (32, 64)
    ]
    assert [each.value for each in found.configurations] == [
        loss(each.settings["lr"], each.settings["width"], 1, 4) for each in found.configurations
    ]
    assert set(starts(tmp_path / "sweeps/toy").values()) == {1} and len(found.trials) == 4
    out = capsys.readouterr().out
    best = loss(0.01, 64, 1, 4)
    assert "4 configurations: 4 done" in out and f"best: lr = 0.01, width = 64: val/loss {best:.4f}" in out
    assert not list((tmp_path / "sweeps/toy/workers").iterdir())
    for trial in found.trials:
        (attempt,) = trial.attempts
        assert attempt["code"] == 0 and attempt["cpu_seconds"] > 0 and trial.tokens == 40

    before = outcome(found)
    assert sweep("resume", tmp_path / "sweeps/toy") == 0  # nothing is left to do
    assert outcome(results(tmp_path / "sweeps/toy")) == before
    assert set(starts(tmp_path / "sweeps/toy").values()) == {1}


def test_list_keeps_its_order_and_runs_equal_ones_once(tmp_path):
    trials = [{"lr": 0.1}, {"lr": 0.01, "width": 128}, {"lr": 0.1}]
    found = run(tmp_path, method="list", trials=trials, parameters={"steps": {"value": 2}})
    assert [each.settings for each in found.configurations] == [
        {"lr": 0.1, "steps": 2},
        {"lr": 0.01, "width": 128, "steps": 2},
    ]


def test_replicates_are_averaged_with_an_interval(tmp_path):
    seeds = {"values": [1, 2, 3], "role": "replicate"}
    found = run(tmp_path, parameters={"lr": {"values": [1e-2, 1e-1]}, "seed": seeds})
    values = [loss(1e-2, 64, seed, 4) for seed in (1, 2, 3)]
    best = found.ranked()[0]
    assert best.value == pytest.approx(sum(values) / 3, abs=1e-12)
    mean = sum(values) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert best.interval == pytest.approx(4.3027 * deviation / math.sqrt(3), rel=1e-4)
    assert [trial.replicate for trial in best.trials] == [1, 2, 3]
    report = (tmp_path / "sweeps/toy/report.md").read_text()
    assert "± half of the 95 % t-interval" in report and "no other interval reaches it" in report


def test_random_is_a_function_of_its_seed_and_can_be_made_longer(tmp_path, capsys):
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1},
        "width": {"min": 16, "max": 128},
        "note": {"expr": "2 * w", "vars": {"w": "width"}},
    }
    settings = {"method": "random", "parameters": parameters}
    first = run(tmp_path, run_cap=3, seed=4, **settings)
    again = run(tmp_path, "again", run_cap=3, seed=4, **settings)
    other = run(tmp_path, "other", run_cap=3, seed=5, **settings)
    assert outcome(first) == outcome(again) and not set(outcome(first)) & set(outcome(other))
    assert all(each.settings["note"] == 2 * each.settings["width"] for each in first.configurations)

    longer = write(tmp_path, run_cap=5, seed=4, **settings)
    assert sweep("resume", longer, "--root", tmp_path / "sweeps") == 0
    found = outcome(results(tmp_path / "sweeps/toy"))
    assert len(found) == 5 and list(found.items())[:3] == list(outcome(first).items())
    assert set(starts(tmp_path / "sweeps/toy").values()) == {1}

    shorter = write(tmp_path, run_cap=2, seed=4, **settings)
    assert sweep("resume", shorter, "--root", tmp_path / "sweeps") == 2
    assert "run_cap: 5 configurations are planned already: 2 are fewer" in capsys.readouterr().err


def test_bayes_is_a_function_of_its_seed_and_finds_the_bowl(tmp_path):
    parameters = {"lr": {"distribution": "log_uniform_values", "min": 1e-6, "max": 1.0}, "steps": {"value": 1}}
    settings = {"method": "bayes", "parameters": parameters, "run_cap": 14, "launcher": {"parallel": 1}}
    first = run(tmp_path, **settings)
    again = run(tmp_path, "again", **settings)
    assert outcome(first) == outcome(again) and len(first.configurations) == 14
    later = [abs(math.log10(each.settings["lr"]) + 2) for each in first.configurations[10:]]
    assert min(later) < 0.5 and sum(later) / len(later) < 1.5  # by chance 2.1 on the average


def test_bayes_runs_no_configuration_twice_and_ends_when_all_are_known(tmp_path):
    parameters = {"lr": {"values": [1e-2, 1e-1]}, "width": {"values": [32, 64]}}
    found = run(tmp_path, method="bayes", parameters=parameters, run_cap=30)
    assert len({each.cell for each in found.configurations}) == len(found.configurations) <= 4
    assert set(starts(tmp_path / "sweeps/toy").values()) == {1}


STOPPING = {
    "asha": {"type": "asha", "min_iter": 2, "eta": 2},
    "hyperband": {"type": "hyperband", "min_iter": 2, "max_iter": 8, "eta": 2},
    "median": {"type": "median", "min_iter": 2, "min_trials": 2},
}


@pytest.mark.parametrize("kind", STOPPING)
def test_bad_ones_are_stopped_early_and_the_best_is_not(kind, tmp_path):
    parameters = {
        "lr": {"values": [1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0]},
        "steps": {"value": 8},
        "sleep": {"value": 0.03},
    }
    found = run(tmp_path, parameters=parameters, early_terminate=STOPPING[kind], launcher={"parallel": 1})
    states = {each.settings["lr"]: each.state for each in found.configurations}
    assert states[1e-2] == "done" and "pruned" in states.values() and set(states.values()) == {"done", "pruned"}
    for trial in (trial for trial in found.trials if trial.state == "pruned"):
        assert 2 <= trial.step < 8 and trial.value == loss(trial.settings["lr"], 64, 1, trial.step)
        assert trial.reason == f"stopped early at step {trial.step}" and trial.attempts[-1]["code"] in (143, -15, 0)
    assert found.ranked()[0].settings["lr"] == 1e-2


def test_method_asha_is_random_with_stopping(tmp_path):
    parameters = {
        "lr": {"distribution": "log_uniform_values", "min": 1e-5, "max": 10.0},
        "steps": {"value": 6},
        "sleep": {"value": 0.03},
    }
    stopping = {"min_iter": 20, "eta": 2, "resource": "tokens"}
    found = run(tmp_path, method="asha", parameters=parameters, early_terminate=stopping, run_cap=5)
    assert {each.state for each in found.configurations} == {"done", "pruned"}
    reasons = {trial.reason for trial in found.trials if trial.state == "pruned"}
    assert all(reason.startswith("stopped early at tokens ") for reason in reasons)


def test_pruning_sees_the_mean_over_replicates(tmp_path):
    # Seeds 1 and 2 differ by .09 at step 2; the means of the two learning rates by .05, the single runs overlap.
    parameters = {
        "lr": {"values": [1e-2, 10 ** (-2 + 0.05)]},
        "seed": {"values": [1, 2], "role": "replicate"},
        "steps": {"value": 6},
        "sleep": {"value": 0.15},
    }
    found = run(tmp_path, parameters=parameters, early_terminate=STOPPING["asha"])
    assert [each.state for each in found.configurations] == ["done", "pruned"]
    worse = found.configurations[1]
    steps = {trial.step for trial in worse.trials}
    assert steps == {2} and worse.value == pytest.approx(sum(trial.value for trial in worse.trials) / 2)


ENDS = {
    "mistake": ("configuration", 2, "unknown key 'model.widht'; did you mean 'model.width'?", 1),
    "crash": ("crash", 1, "RuntimeError: a tensor of the wrong shape", 1),
    "nan": ("diverged", None, "val/loss became nan", 1),
    "memory": ("killed", -9, "killed (SIGKILL)", 2),
    "nameless": (
        "no_metric",
        0,
        "metric.name: 'val/loss' never appeared; did you mean 'val/los'? (seen: train/loss, val/los)",
        1,
    ),
}


def test_failed_trials_are_named_and_never_dropped(tmp_path, capsys):
    parameters = {"end": {"values": ["well", *ENDS]}}
    found = run(tmp_path, parameters=parameters, retries={"max": 1})
    (well,) = found.ranked()
    assert well.settings == {"end": "well"}
    trials = {trial.settings["end"]: trial for trial in found.trials if trial.state == "failed"}
    assert set(trials) == set(ENDS)
    out, report = capsys.readouterr().out, (tmp_path / "sweeps/toy/report.html").read_text()
    counted = starts(tmp_path / "sweeps/toy")
    for end, (kind, code, reason, times) in ENDS.items():
        trial = trials[end]
        if end == "memory" and trial.kind == "host_oom":  # something else on this machine ran out of memory just now
            kind, reason = "host_oom", "killed because the machine ran out of memory"
        assert (trial.kind, trial.reason, trial.value) == (kind, reason, None), end
        assert code is None or trial.code == code
        assert counted[trial.trial] == times and len(trial.attempts) == times, end
        assert f"failed: trial {trial.number} [{trial.trial}] {kind}: {reason}" in out
        assert trial.trial in report


def test_a_killed_trial_goes_on_from_its_checkpoint(tmp_path):
    found = run(tmp_path, parameters={"end": {"values": ["well", "memory_once"]}})
    assert [each.state for each in found.configurations] == ["done", "done"]
    (killed,) = (trial for trial in found.trials if trial.settings["end"] == "memory_once")
    assert [attempt["code"] for attempt in killed.attempts] == [-9, 0]
    lines = (tmp_path / "sweeps/toy/trials" / killed.trial / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]


def test_a_time_budget_costs_no_retries(tmp_path):
    found = run(tmp_path, parameters={"end": {"values": ["budget"]}, "steps": {"value": 4}}, retries={"max": 0})
    (trial,) = found.trials
    assert trial.state == "done" and [attempt["code"] for attempt in trial.attempts] == [85, 85, 85, 0]


def test_time_outs_end_even_what_does_not_listen(tmp_path):
    launcher = {"parallel": 2, "timeout": "1s", "grace": "1s"}
    found = run(tmp_path, code=1, parameters={"end": {"values": ["hang", "stubborn"]}}, launcher=launcher)
    assert [(trial.state, trial.kind, trial.reason, trial.code) for trial in found.trials] == [
        ("failed", "timeout", "longer than 1 s", 143),
        ("failed", "timeout", "longer than 1 s", -9),
    ]


@pytest.mark.parametrize(
    ("end", "tried", "line"),
    [
        ("nameless", 1, "the first configuration failed, the sweep stops: metric.name: 'val/loss' never appeared"),
        ("mistake", 3, "all of the first 3 configurations failed, the sweep stops: unknown key 'model.widht'"),
    ],
)
def test_a_sweep_in_which_all_fail_alike_stops(end, tried, line, tmp_path, capsys):
    parameters = {"lr": {"values": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]}, "end": {"value": end}}
    found = run(tmp_path, code=1, parameters=parameters, launcher={"parallel": 1})
    assert line in capsys.readouterr().err
    states = [each.state for each in found.configurations]
    assert states == ["failed"] * tried + ["waiting"] * (6 - tried)


def test_failed_ones_are_tried_again_when_asked(tmp_path):
    toy = tmp_path / "mended.py"
    toy.write_text("import sys; sys.exit(1)")
    program = [GRID["program"][0], str(toy)]
    found = run(tmp_path, code=1, program=program, launcher={"parallel": 1})
    assert {each.state for each in found.configurations} == {"failed", "waiting"}
    toy.write_text(f"import runpy; runpy.run_path({GRID['program'][-1]!r}, run_name='__main__')")
    assert sweep("resume", tmp_path / "sweeps/toy", "--retry_failed") == 0
    again = results(tmp_path / "sweeps/toy")
    assert [each.state for each in again.configurations] == ["done"] * 4
    assert set(outcome(again)) == set(outcome(found))
    assert max(len(trial.attempts) for trial in again.trials) == 2  # what failed is not forgotten


def test_slots_have_cores_and_devices_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    launcher = {"parallel": 2, "gpus_per_trial": 2, "cores": 3}
    found = run(tmp_path, launcher=launcher, parameters={"lr": {"values": [0.1, 0.2]}, "sleep": {"value": 0.2}})
    seen = [
        json.loads((tmp_path / "sweeps/toy/trials" / trial.trial / "starts.log").read_text()) for trial in found.trials
    ]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in seen} == {"4,5", "6,7"}
    assert {each["OMP_NUM_THREADS"] for each in seen} == {"3"} and {trial.gpus for trial in found.trials} == {2}


def test_too_few_devices_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    path = write(tmp_path, launcher={"parallel": 2, "gpus_per_trial": 1})
    assert sweep("run", path, "--root", tmp_path) == 2
    assert "launcher: 2 trials at once with 1 GPUs each need 2, this machine has 1" in capsys.readouterr().err
    path = write(tmp_path, launcher={"parallel": 2, "gpus_per_trial": 0})
    assert sweep("run", path, "--root", tmp_path) == 0  # nothing had begun: the name is free


def test_edits_that_change_the_question_are_refused_by_name(tmp_path, capsys):
    run(tmp_path, parameters={"lr": {"values": [0.1]}, "width": {"value": 64}})
    root = tmp_path / "sweeps"
    for changes, part in (
        ({"parameters": {"lr": {"values": [0.1, 0.2]}, "width": {"value": 64}}}, "parameters.lr"),
        ({"parameters": {"lr": {"values": [0.1]}, "width": {"value": 64}}, "metric": {"name": "x"}}, "metric"),
        ({"parameters": {"lr": {"values": [0.1]}}}, "parameters.width"),
        ({"parameters": {"lr": {"values": [0.1]}, "width": {"value": 64}}, "storage": "other.db"}, "storage"),
    ):
        path = write(tmp_path, **changes)
        assert sweep("resume", path, "--root", root) == 2
        assert f"was edited since '{root / 'toy'}' began: {part}; only run_cap" in capsys.readouterr().err
    allowed = write(
        tmp_path, parameters={"lr": {"values": [0.1]}, "width": {"value": 64}}, retries={"max": 9}, description="more"
    )
    assert sweep("resume", allowed, "--root", root) == 0


def test_other_versions_and_strangers_are_refused(tmp_path, capsys):
    found = run(tmp_path)
    path = tmp_path / "sweeps/toy"
    record = path / "trials" / found.trials[0].trial / ledger.FILE
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "version": 9}))
    assert sweep("status", path) == 2
    assert f"'{record}' is a ledger of version 9, this is lightning-nlp with version 1" in capsys.readouterr().err
    record.write_text(json.dumps(content))
    facts = json.loads((path / "sweep.json").read_text())
    (path / "sweep.json").write_text(json.dumps({**facts, "version": 9}))
    assert sweep("resume", path) == 2
    assert f"'{path}' is a ledger of version 9" in capsys.readouterr().err
    (path / "sweep.json").write_text(json.dumps(facts))
    sweep_file = path / "sweep.yaml"
    text = sweep_file.read_text()
    sweep_file.write_text(text.replace("0.01", "0.02"))
    assert sweep("resume", path) == 2
    assert "was edited by hand: parameters.lr differ" in capsys.readouterr().err
    sweep_file.write_text(text)
    assert sweep("run", write(tmp_path), "--root", tmp_path / "sweeps") == 2
    assert f"exists: go on with `lightning-nlp sweep resume {path}`" in capsys.readouterr().err
    assert sweep("run", write(tmp_path), "--root", tmp_path / "sweeps", "--overwrite") == 0
    assert sweep("status", tmp_path / "sweeps/toi") == 2
    assert "there is no sweep at" in capsys.readouterr().err


def test_a_study_of_another_sweep_in_the_same_storage_is_refused(tmp_path, capsys):
    storage = str(tmp_path / "shared.db")
    run(tmp_path, storage=storage)
    path = write(tmp_path, storage=storage, parameters={"lr": {"values": [0.5]}})
    assert sweep("run", path, "--root", tmp_path / "elsewhere") == 2
    assert "the study 'toy' in the storage is of another sweep: parameters.lr" in capsys.readouterr().err


def test_an_option_of_another_verb_is_not_what_was_meant(tmp_path, capsys):
    assert sweep("status", tmp_path, "--parallel", 2) == 2
    assert capsys.readouterr().err.endswith("unrecognized arguments: --parallel 2\n")
    assert sweep("status", tmp_path, "--jsn") == 2
    assert capsys.readouterr().err.endswith("unrecognized arguments: --jsn; did you mean '--json'?\n")


def test_dry_run_prints_the_trials_and_leaves_nothing(tmp_path, capsys):
    seeds = {"values": [1, 2], "role": "replicate"}
    path = write(tmp_path, parameters={**GRID["parameters"], "seed": seeds})
    assert sweep("run", path, "--root", tmp_path / "sweeps", "--dry_run") == 0
    assert capsys.readouterr().out.splitlines() == [
        "sweep toy (grid): 4 configurations x 2 replicates (seed) = 8 trials",
        "  #  lr     width",
        "  0  0.001  32",
        "  1  0.001  64",
        "  2  0.01   32",
        "  3  0.01   64",
    ]
    assert not (tmp_path / "sweeps").exists()


def test_status_as_json_is_the_ledger(tmp_path, capsys):
    found = run(tmp_path)
    capsys.readouterr()
    assert sweep("status", tmp_path / "sweeps/toy", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert [each["value"] for each in content["configurations"]] == [each.value for each in found.configurations]
    best = yaml.safe_load((tmp_path / "sweeps/toy/best.yaml").read_text())
    assert best == {"lr": 0.01, "width": 64}
