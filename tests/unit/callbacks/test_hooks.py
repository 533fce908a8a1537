"""Hooks that do nothing are passed over; those that do something are not."""

from __future__ import annotations

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback

from lightning_nlp.callbacks.hooks import EACH_BATCH, skip_empty_hooks


class Counts(Callback):
    def __init__(self) -> None:
        self.ends = self.validated = 0

    def on_train_batch_end(self, *args: object, **kwargs: object) -> None:
        self.ends += 1

    def on_validation_end(self, *args: object) -> None:
        self.validated += 1


class More(Counts):
    """Inherits a hook that does something."""


class Tiny(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_only_empty_hooks_are_passed_over(tmp_path):
    seen: list[int] = []
    own, lent = More(), LambdaCallback(on_before_backward=lambda *args: seen.append(1))
    skip_empty_hooks([own, lent])
    assert [hook for hook in EACH_BATCH if callable(getattr(own, hook))] == ["on_train_batch_end"]
    assert callable(lent.on_before_backward)
    batches = torch.utils.data.DataLoader([torch.ones(2)] * 3, batch_size=1)
    trainer = L.Trainer(
        max_epochs=1,
        callbacks=[own, lent],
        logger=False,
        accelerator="cpu",
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(Tiny(), batches, batches)
    assert (own.ends, len(seen)) == (3, 3) and own.validated >= 1


def test_all_of_them_are_hooks_of_lightning():
    assert all(callable(getattr(Callback, hook)) for hook in EACH_BATCH)
