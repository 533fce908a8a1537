"""A batch whose gradients are not finite stops the run with nothing saved since, or is skipped."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch

from lightning_nlp.errors import TrainingError
from lightning_nlp.optim.guard import IN_A_ROW, Guard
from lightning_nlp.run import manifest
from tests.integration import runs


class Poison(L.Callback):
    """Spoils one number of one gradient at some steps."""

    def __init__(self, steps):
        self.steps = steps

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if trainer.global_step + 1 in self.steps:
            next(pl_module.parameters()).grad.view(-1)[3] = float("nan")


def fit(corpus, directory, steps, clip=1.0, **trainer):
    settings = {"max_steps": 24, "validate_every": 0, "gradient_clip_val": clip, "callbacks": [Poison(steps)]}
    module = runs.fit_language_model(corpus, directory, **settings, **trainer)
    return module, runs.lines(directory)


@pytest.mark.parametrize("clip", [1.0, None])
def test_stops_with_nothing_saved_since(clip, corpus, tmp_path):
    with pytest.raises(TrainingError, match="the gradients of step 6 are not finite, and nothing was saved since"):
        fit(corpus, tmp_path, {6, 7}, clip)
    assert [found.step for found in manifest.published(tmp_path / "checkpoints")] == [4]


@pytest.mark.parametrize("clip", [1.0, None])
def test_skips_the_step_and_goes_on(clip, corpus, tmp_path):
    module, lines = fit(corpus, tmp_path, {6, 7}, clip, non_finite="skip")
    assert all(value.isfinite().all() for value in module.state_dict().values())
    assert lines[-1]["step"] == 24 and lines[-2]["train/skipped_steps"] == 2
    optimizer = module.trainer.optimizers[0]
    assert {int(values["step"]) for values in optimizer.state.values()} == {22}


def test_gives_up_after_many_in_a_row(corpus, tmp_path):
    with pytest.raises(
        TrainingError, match=f"the gradients of {IN_A_ROW} steps in a row, up to step 14, are not finite"
    ):
        fit(corpus, tmp_path, set(range(5, 25)), non_finite="skip")


def test_the_first_bad_step_is_named():
    guard = Guard()
    for step, norm in enumerate([1.0, float("inf"), 2.0, float("nan")], 1):
        assert not guard.look(torch.tensor(norm), step)
    with pytest.raises(TrainingError, match="step 2 "):
        guard.check()
