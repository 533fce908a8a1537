"""``trainer.compile``: every block of the backbone compiled, in place."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from lightning_nlp.backbone.block import blocks_of


class CompileBlocks(Callback):
    """Compiles each block when training starts. Names in the state dict stay as they are.

    ``module.compile()`` replaces how the block is called; ``torch.compile(module)`` would wrap it, and every checkpoint
    would carry ``_orig_mod`` in its names.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for block in blocks_of(pl_module, "trainer.compile blocks"):
            block.compile(backend=self.backend)
