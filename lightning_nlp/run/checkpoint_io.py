"""CheckpointIO that writes straight to the path it is given.

Atomicity is the business of ``Trainer.save_checkpoint``, which hands over a partial name in the final directory:
Lightning's own writer goes through ``TMPDIR``, is not atomic across file systems, and doubles the memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from lightning_nlp.run import sharded, weights
from lightning_nlp.run.manifest import Checkpoint, remove


class PlainCheckpointIO(TorchCheckpointIO):
    """``torch.save`` to the very path; loading as Lightning does (``weights_only=True`` by default).

    A reference to several checkpoints, or to one of the two sets of weights in one, is read as what it stands for.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if storage_options is not None:
            raise TypeError("storage_options are not supported: checkpoints are written to a local path")
        torch.save(checkpoint, path)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        if weights.is_reference(path) or sharded.is_sharded(Path(path)):
            return weights.read(path)
        return super().load_checkpoint(path, *args, **kwargs)

    def remove_checkpoint(self, path: Any) -> None:
        remove(Checkpoint(Path(path), {"step": -1}))
