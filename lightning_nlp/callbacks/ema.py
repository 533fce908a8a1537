"""Exponential moving average of the weights: validated, saved and used instead of the weights an optimizer has.

Lightning's ``EMAWeightAveraging`` does not keep this package's promises: it puts the average into the model when
training ends, so that a longer run cannot go on exactly; it swaps ``.data``, which the narrow copies of bf16-master do
not notice; it copies the whole module, a frozen base included; and what is saved from within a validation has the two
sets of weights exchanged.
"""

from __future__ import annotations

import sys
from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn

from lightning_nlp.errors import CheckpointError, ConfigError


class EMA(Callback):
    """``average = d * average + (1 - d) * weights`` after every optimizer step, or every few.

    Validations of a training run see the average. Checkpoints hold it under ``ema``, beside the weights and with what
    is needed to go on exactly; :mod:`lightning_nlp.run.choice` says how to ask for one or the other.

    Args:
        decay: d in the long run.
        warmup: begin with a shorter memory: d is at most (1 + n) / (10 + n) at the n-th update (n from 0), so that the
            first weights are soon forgotten.
        every_n_steps: optimizer steps between updates.

    Raises:
        ConfigError: impossible values, or a strategy that shards parameters.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True, every_n_steps: int = 1) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"EMA decay must be between 0 and 1, not {decay}")
        if every_n_steps < 1:
            raise ConfigError(f"EMA every_n_steps must be at least 1, not {every_n_steps}")
        self.decay, self.warmup, self.every_n_steps = decay, warmup, every_n_steps
        self.updates = 0
        self._averages: list[Tensor] = []
        self._weights: list[nn.Parameter] = []
        self._kept: list[Tensor] | None = None
        self._saved: dict[str, Any] | None = None
        self._seen = 0

    @property
    def settings(self) -> dict[str, Any]:
        """Plain values, for manifests."""
        return {"decay": self.decay, "warmup": self.warmup, "every_n_steps": self.every_n_steps}

    def decay_of(self, update: int) -> float:
        """d at an update, counted from 0."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    # Training -------------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if stage == "fit" and not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            name = type(trainer.strategy).__name__
            raise ConfigError(f"EMA works on one device and with ddp, not with {name}, which shards parameters")

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        self._saved = checkpoint.get("ema")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with the weights there are, or where the checkpoint was."""
        self._weights = [parameter for parameter in pl_module.parameters() if parameter.requires_grad]
        self._averages = [weight.detach().to(wide(weight), copy=True) for weight in self._weights]
        self._seen, self._kept = trainer.global_step, None
        if self._saved is not None:
            self._restore(pl_module, self._saved)
        elif trainer.global_step and trainer.is_global_zero:
            print(f"EMA: the checkpoint has no average, it begins at step {trainer.global_step}", file=sys.stderr)
        self._saved = None

    def _restore(self, module: nn.Module, saved: dict[str, Any]) -> None:
        names = names_of(module, self._weights)
        for name, average in zip(names, self._averages, strict=True):
            if name not in saved["weights"]:
                raise CheckpointError(f"the checkpoint has no moving average of {name}: start a run with --init_from")
            average.copy_(saved["weights"][name])
        self.updates = saved["updates"]

    @torch.no_grad()
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any) -> None:
        step = trainer.global_step
        if step == self._seen:
            return
        self._seen = step
        if step % self.every_n_steps:
            return
        weights = [
            weight.detach().to(average.dtype) for weight, average in zip(self._weights, self._averages, strict=True)
        ]
        torch._foreach_lerp_(self._averages, weights, 1 - self.decay_of(self.updates))
        self.updates += 1

    # Validation -----------------------------------------------------------------------------------------------

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "fit" and self._averages and self._kept is None:
            self._kept = [weight.detach().clone() for weight in self._weights]
            copy_into(self._weights, self._averages)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._kept is not None:
            copy_into(self._weights, self._kept)
            self._kept = None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_validation_end(trainer, pl_module)

    # Checkpoints ----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Both sets of weights, each in its place, also from within a validation."""
        if not self._averages:
            return
        averages = {id(weight): average for weight, average in zip(self._weights, self._averages, strict=True)}
        kept = dict(zip(averages, self._kept or [], strict=False))
        state = pl_module.state_dict(keep_vars=True)  # names that share a parameter share its average too
        weights = {name: averages[id(value)] for name, value in state.items() if id(value) in averages}
        checkpoint["state_dict"] |= {name: kept[id(value)] for name, value in state.items() if id(value) in kept}
        checkpoint["ema"] = {**self.settings, "updates": self.updates, "weights": weights}


def wide(weight: Tensor) -> torch.dtype:
    """Averages are kept in float32 at least: small steps are lost in narrower types."""
    return torch.promote_types(weight.dtype, torch.float32)


def names_of(module: nn.Module, parameters: list[nn.Parameter]) -> list[str]:
    """The first name of each parameter."""
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return [names[id(parameter)] for parameter in parameters]


@torch.no_grad()
def copy_into(weights: list[nn.Parameter], values: list[Tensor]) -> None:
    """In place, so that narrow copies of the weights notice (their version counts it)."""
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)
