"""Optimizers and schedules in real runs: overlays, branches that decay, growing batches, rules changed on resume."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from lightning_nlp import registry
from lightning_nlp.__main__ import main
from tests.integration import runs

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).parents[2] / "configs"
OVERLAYS = sorted([*(CONFIGS / "optimizer").glob("*.yaml"), *(CONFIGS / "schedule").glob("*.yaml")])


def steps(run: Path) -> dict[int, dict[str, float]]:
    """What training logged, by step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if "train/loss" in line}


def test_every_optimizer_has_an_overlay():
    found = {path.stem for path in OVERLAYS if path.parent.name == "optimizer"}
    assert found | {"adamw"} == set(registry.OPTIMIZERS)


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda path: path.stem)
def test_overlay_runs_real_steps(overlay, tiny, tmp_path):
    quick = ["--trainer.max_steps", "3", "--trainer.validate_every", "3", "--root", str(tmp_path)]
    recipe = tmp_path / "recipe.yaml"  # with settings of AdamW and the cosine, which overlays take back where they must
    recipe.write_text("model: {init_args: {optimizer: {betas: [0.8, 0.9], eps: 1e-7}, schedule: {final: 0.2}}}")
    assert main(["fit", "-c", str(tiny), "-c", str(recipe), "-c", str(overlay), *quick]) == 0
    saved = torch.load(tmp_path / "tiny" / "checkpoints" / "step-3.ckpt", weights_only=True)
    part = overlay.parent.name
    assert saved["hyper_parameters"][part]["name"] == overlay.stem
    assert (
        saved["optimizer_states"][0]["param_groups"][0]["optimizer"] == saved["hyper_parameters"]["optimizer"]["name"]
    )


@pytest.fixture(scope="module")
def stable(corpus, tmp_path_factory) -> Path:
    """Twelve steps of Muon at a rate that stays, with a rule; a checkpoint at every fourth."""
    root = tmp_path_factory.mktemp("stable")
    config = runs.write_config(root / "stable.yaml", corpus, max_steps=12, checkpoint_every=4, keep_last=9)
    muon = ["--model.optimizer.name", "muon", "--model.optimizer.groups", "[{match: token_embedding, lr_scale: 0.5}]"]
    schedule = ["--model.schedule.name", "wsd", "--model.schedule.decay", "2", "--model.schedule.warmup", "2"]
    runs.inside("fit", "-c", config, *muon, *schedule, "--root", root)
    return root / "stable"


def test_a_checkpoint_of_the_stable_part_is_branched_off_to_decay(stable, tmp_path):
    config, checkpoint = stable / "config.fit.yaml", stable / "checkpoints" / "step-8.ckpt"
    decay = ["--trainer.max_steps", 11, "--model.schedule.decay", 3, "--model.schedule.final", 0]
    runs.inside("fit", "-c", config, "--root", tmp_path, "--name", "branch", "--ckpt_path", checkpoint, *decay)
    whole, branch = steps(stable), steps(tmp_path / "branch")
    assert sorted(branch) == [9, 10, 11]
    for step in (9, 10):  # same rows; and the first of them at the same weights
        assert branch[step]["ids"] == whole[step]["ids"]
    assert branch[9]["train/loss"] == whole[9]["train/loss"]
    rates = [branch[step]["train/learning_rate"] for step in sorted(branch)]
    assert rates == pytest.approx([0.003, 0.003 * (1 - math.sqrt(1 / 3)), 0.003 * (1 - math.sqrt(2 / 3))])
    # Killed or not, a branch goes on as any run does.
    runs.inside("fit", "--run", tmp_path / "branch", "--trainer.max_steps", 12)
    assert sorted(steps(tmp_path / "branch")) == [9, 10, 11, 12]


def test_the_same_steps_again_from_a_checkpoint_are_bit_equal(stable, tmp_path):
    config, checkpoint = stable / "config.fit.yaml", stable / "checkpoints" / "step-4.ckpt"
    runs.inside("fit", "-c", config, "--root", tmp_path, "--name", "again", "--ckpt_path", checkpoint)
    whole, again = steps(stable), steps(tmp_path / "again")
    assert sorted(again) == list(range(5, 13))
    for step, values in again.items():
        for name in ("ids", "train/loss", "train/grad_norm", "train/learning_rate"):
            assert values[name] == whole[step][name], (step, name)


def test_rules_changed_on_resume_hold(stable, tmp_path):
    config, checkpoint = stable / "config.fit.yaml", stable / "checkpoints" / "step-12.ckpt"
    rules = "[{match: attention, lr_scale: 0.25, weight_decay: 0.0}, {match: '*norm*', weight_decay: 0.5}]"
    changed = ["--trainer.max_steps", 13, "--model.optimizer.groups", rules, "--model.optimizer.momentum", 0.5]
    runs.inside("fit", "-c", config, "--root", tmp_path, "--name", "ruled", "--ckpt_path", checkpoint, *changed)
    saved = torch.load(tmp_path / "ruled" / "checkpoints" / "step-13.ckpt", weights_only=True)
    found = {
        name.removeprefix("backbone.").removeprefix("decoder."): (
            group["lr_scale"],
            group["weight_decay"],
            group["momentum"],
        )
        for group in saved["optimizer_states"][0]["param_groups"]
        for name in group["param_names"]
    }
    assert found["layers.0.attention.output.weight"] == (0.25, 0.0, 0.5)
    assert found["final_norm.weight"] == (1.0, 0.5, 0.5)
    assert found["token_embedding.weight"] == (1.0, 0.0, 0.5)
    assert found["layers.0.feedforward.up.weight"] == (1.0, 0.1, 0.5)


@pytest.mark.parametrize(("ramp", "expected"), [("sqrt", 0.5**0.5), ("linear", 0.5)])
def test_the_rate_follows_a_growing_batch(ramp, expected, tiny, tmp_path):
    grows = ["--data.batch_ramp", "{0: 4, 2: 8}", "--model.schedule.ramp", ramp]
    plain = ["--model.schedule.name", "constant", "--model.schedule.warmup", 0, "--trainer.max_steps", 4]
    runs.inside("fit", "-c", tiny, "--root", tmp_path, *grows, *plain)
    rates = [values["train/learning_rate"] for _, values in sorted(steps(tmp_path / "tiny").items())]
    assert rates == pytest.approx([0.003 * expected] * 2 + [0.003] * 2)


def test_a_batch_that_does_not_grow_has_no_ramp(tiny, tmp_path, capsys):
    assert main(["fit", "-c", str(tiny), "--root", str(tmp_path), "--model.schedule.ramp", "sqrt"]) == 2
    assert "schedule.ramp is sqrt, but the batch does not grow: give data.batch_ramp" in capsys.readouterr().err
