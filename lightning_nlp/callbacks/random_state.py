"""Random states in the checkpoint, so that dropout after a resume is the dropout of the uninterrupted run."""

from __future__ import annotations

import random
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
import torch.distributed
from lightning.pytorch.callbacks import Callback


def capture() -> dict[str, Any]:
    """All global random states as plain data and tensors."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }


def restore(state: dict[str, Any]) -> None:
    """Put back what :func:`capture` took."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, numpy_keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, numpy_keys.numpy().astype(np.uint32), position, has_gauss, cached))


class RandomState(Callback):
    """Saves every rank's states; validation runs between capture and restore, so it never changes training."""

    def __init__(self) -> None:
        self._loaded: list[dict[str, Any]] = []
        self._before_validation: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        own = self._before_validation or capture()
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return {"ranks": [own]}
        ranks: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(ranks, own)
        return {"ranks": ranks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["ranks"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # With another number of ranks there is no state to continue; the order of data does not depend on it.
        if len(self._loaded) == trainer.world_size:
            restore(self._loaded[trainer.global_rank])
        self._loaded = []

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._before_validation = capture()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._before_validation is not None:
            restore(self._before_validation)
            self._before_validation = None
