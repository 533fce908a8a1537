"""``trainer.activation_checkpointing``: blocks of the backbone that compute again instead of remembering."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from lightning_nlp.backbone.block import blocks_of
from lightning_nlp.backbone.recompute import Kind, recompute


class Recompute(Callback):
    """Changes each block in place when training starts."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for block in blocks_of(pl_module, "trainer.activation_checkpointing"):
            if "forward" not in vars(block):  # of an earlier fit
                recompute(block, self.kind)
