"""What the model says at each validation, as text in TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer


class Samples(Callback):
    """Asks every head for its sample texts after a validation and hands them to TensorBoard."""

    def on_validation_end(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        if trainer.state.fn != "fit" or trainer.sanity_checking or trainer.global_step == 0:
            return
        for name, head in getattr(pl_module, "heads", {}).items():
            texts = head.samples(pl_module.backbone)  # every rank takes part: the backbone may be sharded
            for logger in trainer.loggers if trainer.is_global_zero else []:
                writer = getattr(logger, "experiment", None)
                if writer is not None and hasattr(writer, "add_text"):
                    for title, text in texts.items():
                        writer.add_text(f"{name}/{title}", text, trainer.global_step)
