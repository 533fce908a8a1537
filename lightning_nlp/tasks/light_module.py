"""A LightningModule whose bookkeeping costs less: Lightning notes the hook it is in some fifty times a step."""

from __future__ import annotations

import inspect
from typing import Any

import lightning.pytorch as L
import torch
from torch import Tensor


class LightModule(L.LightningModule):
    """As ``LightningModule``; what Lightning does with it at every step takes shorter ways to the same end."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Lightning asks at every step which arguments the training step has: the answer is kept."""
        super().__init_subclass__(**kwargs)
        if (step := vars(cls).get("training_step")) is not None:
            step.__signature__ = inspect.signature(step)

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning's note of the hook it is in is no parameter, module or buffer: nothing has to be looked up."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move the tensors of a batch, which stand in it side by side: lists of names are not searched for more."""
        if type(batch) is not dict:
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        wait = device.type in ("cpu", "mps")  # to which Lightning does not copy in the background either
        return {
            name: value.to(device, non_blocking=not wait) if isinstance(value, Tensor) else value
            for name, value in batch.items()
        }
