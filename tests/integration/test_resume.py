"""Stop anywhere, go on, and nothing shows: losses, gradient norms, metrics and example ids are equal bit for bit."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch

from lightning_nlp.run import manifest
from tests.integration import runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def clean(tmp_path_factory, corpus):
    """An uninterrupted run, the truth the others are compared with."""
    root = tmp_path_factory.mktemp("clean")
    config = runs.write_config(root / "tiny.yaml", corpus)
    runs.run("fit", "-c", config, "--root", root, "--name", "clean")
    return config, root / "clean"


def test_killed_runs_equal_the_clean_one(clean, tmp_path):
    config, directory = clean
    killed, hits = runs.kill_and_resume(config, tmp_path, kills=3, seed=1)
    assert hits >= 2
    assert max(runs.steps_back(killed), default=0) <= 5  # from a checkpoint, not from the beginning
    assert runs.history(killed) == runs.history(directory)
    assert not list(killed.glob("checkpoints/.*partial"))


CASES = [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted"), (signal.SIGUSR1, 85, "requeue")]


@pytest.mark.parametrize(("number", "code", "state"), CASES)
def test_signals_save_at_the_step_boundary(clean, tmp_path, number, code, state):
    config, directory = clean
    run = tmp_path / "signalled"
    args = ("fit", "-c", config, "--run", run)
    process = runs.start(list(args), runs.environment())
    assert runs.stop_after(process, run, 7, 0.0, number)
    assert process.returncode == code
    status = json.loads((run / "status.json").read_text())
    last = max(checkpoint.step for checkpoint in manifest.published(run / "checkpoints"))
    assert (status["state"], status["exit_code"], status["step"]) == (state, code, last)
    assert last == runs.last_step(run)  # nothing was done after the save, nothing lost
    runs.run(*args)
    assert runs.history(run) == runs.history(directory)
    assert runs.steps_back(run) == []


def test_time_budget_requeues(clean, tmp_path):
    config, directory = clean
    run = tmp_path / "budget"
    args = ("fit", "-c", config, "--run", run)
    done = runs.run(*args, "--trainer.time_budget", "1s", "--trainer.max_steps", "100000", check=85)
    assert "time budget used up: saved at step" in done.stderr
    assert runs.last_step(run) == json.loads((run / "status.json").read_text())["step"]


def test_two_ranks_see_the_same_global_batches_and_learn_the_same(clean, tmp_path):
    config, _ = clean
    common = ("--model.backbone.dropout", 0, "--trainer.max_steps", 8, "--trainer.validate_every", 4)
    runs.run("fit", "-c", config, "--root", tmp_path, "--name", "one", *common)
    ranks = ("--trainer.devices", 2, "--trainer.strategy", "ddp")
    runs.run("fit", "-c", config, "--root", tmp_path, "--name", "two", *common, *ranks)
    one, two = runs.history(tmp_path / "one"), runs.history(tmp_path / "two")
    assert one.keys() == two.keys()
    for key, value in one.items():
        if key[1] in ("ids", "tokens"):
            assert two[key] == value
        else:
            assert two[key] == pytest.approx(value, rel=2e-5)
    weights = [
        torch.load(tmp_path / name / "checkpoints" / "step-8.ckpt", weights_only=True)["state_dict"]
        for name in ("one", "two")
    ]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-6)


def test_resume_on_another_number_of_ranks_and_another_accumulation(clean, tmp_path):
    config, directory = clean
    run = tmp_path / "elastic"
    args = ("fit", "-c", config, "--run", run)
    process = runs.start(list(args), runs.environment())
    assert runs.stop_after(process, run, 12, 0.0, signal.SIGTERM)
    ranks = ("--trainer.devices", 2, "--trainer.strategy", "ddp", "--data.micro_batch_size", 4)
    runs.run(*args, *ranks, "--trainer.max_steps", 30)
    clean_history, found = runs.history(directory), runs.history(run)
    assert runs.steps_back(run) == []
    for step in range(1, 31):
        assert found[step, "ids"] == clean_history[step, "ids"], f"step {step}"
        assert found[step, "tokens"] == clean_history[step, "tokens"]


def test_damaged_checkpoint_is_named_and_the_one_before_used(clean, tmp_path):
    config, directory = clean
    run = tmp_path / "damaged"
    shutil.copytree(directory, run)
    newest = manifest.published(run / "checkpoints")[-1]
    content = bytearray(newest.path.read_bytes())
    content[len(content) // 2] ^= 1
    newest.path.write_bytes(content)
    done = runs.run("fit", "--run", run)
    assert (
        f"checkpoint at step {newest.step} is damaged (step-{newest.step}.ckpt does not match its checksum)"
        in done.stderr
    )
    assert runs.history(run) == runs.history(directory)  # recomputed values are checked against the first ones
    for checkpoint in manifest.published(run / "checkpoints"):
        checkpoint.path.write_bytes(b"")
    done = runs.run("fit", "--run", run, check=1)
    assert "refusing to start over" in done.stderr


def test_finished_run_says_so(clean):
    _, directory = clean
    before = sorted(directory.glob("checkpoints/*"))
    done = runs.run("fit", "--run", directory)
    assert "is finished: 40 steps done" in done.stderr
    assert sorted(directory.glob("checkpoints/*")) == before
