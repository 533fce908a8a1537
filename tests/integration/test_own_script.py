"""The Trainer serves modules and data of one's own: checkpoints, random states and logs come with it."""

from __future__ import annotations

import json
import os
import signal

import lightning.pytorch as L
import pytest
import torch
from torch.utils.data import DataLoader

import lightning_nlp
from lightning_nlp.run import manifest
from lightning_nlp.run.exit_codes import GracefulExit

pytestmark = pytest.mark.slow


class Own(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.dropout = torch.nn.Dropout(0.5)

    def training_step(self, batch, batch_idx):
        return self.layer(self.dropout(batch)).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.layer(batch).square().mean(), logger=False)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Stop(L.Callback):
    """A SIGTERM right at the end of a step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def fit(directory, steps, ckpt_path=None, callbacks=None, validate_every=5):
    torch.manual_seed(0)
    module, rows = Own(), torch.ones(1000, 4)
    trainer = lightning_nlp.Trainer(
        max_steps=steps,
        validate_every=validate_every,
        log_every_n_steps=5,
        accumulate_grad_batches=2,
        accelerator="cpu",
        enable_progress_bar=False,
        callbacks=callbacks,
        default_root_dir=str(directory),
    )
    trainer.fit(module, DataLoader(rows, batch_size=4), DataLoader(rows[:8], batch_size=4), ckpt_path=ckpt_path)
    return module


def test_own_module_saves_validates_and_resumes(tmp_path):
    whole = fit(tmp_path / "whole", 20)
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/loss" in line] == [5, 10, 15, 20]
    fit(tmp_path / "parts", 10)
    parts = fit(tmp_path / "parts", 20, ckpt_path="last")
    torch.testing.assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)  # the same dropout
    assert [found.step for found in manifest.published(tmp_path / "parts" / "checkpoints")][-1] == 20


@pytest.mark.parametrize("every", [1, 5])
def test_saved_before_its_validation_has_no_scores_until_it_is_validated(every, tmp_path):
    with pytest.raises(GracefulExit):
        fit(tmp_path, 20, callbacks=[Stop(10)], validate_every=every)
    before = manifest.published(tmp_path / "checkpoints")
    assert [found.step for found in before][-2:] == [10 - every, 10]
    assert before[-2].manifest["metrics"] and not before[-1].manifest["metrics"]  # not those of the step before
    fit(tmp_path, 15, ckpt_path="last", validate_every=every)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val/loss" in line] == list(range(every, 16, every))
