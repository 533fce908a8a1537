"""``trainer.activation_checkpointing``: blocks of the backbone that compute again instead of remembering."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from lightning_nlp.backbone.block import Block
from lightning_nlp.backbone.recompute import Kind, recompute
from lightning_nlp.errors import ConfigError


class Recompute(Callback):
    """Changes each :class:`Block` in place when training starts."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        blocks = [module for module in pl_module.modules() if isinstance(module, Block)]
        if not blocks:
            raise ConfigError("trainer.activation_checkpointing: this model has no block of our backbone")
        for block in blocks:
            if "forward" not in vars(block):  # of an earlier fit
                recompute(block, self.kind)
