"""``trainer.compile``: every block of the backbone compiled, in place."""

from __future__ import annotations

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from lightning_nlp.backbone.block import Block
from lightning_nlp.errors import ConfigError


class CompileBlocks(Callback):
    """Compiles each :class:`Block` when training starts. Names in the state dict stay as they are.

    ``module.compile()`` replaces how the block is called; ``torch.compile(module)`` would wrap it, and every checkpoint
    would carry ``_orig_mod`` in its names.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        blocks = [module for module in pl_module.modules() if isinstance(module, Block)]
        if not blocks:
            raise ConfigError("trainer.compile blocks: this model has no block of our backbone")
        for block in blocks:
            block.compile(backend=self.backend)
