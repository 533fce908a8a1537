"""``trainer.precision``: what it may be, and the plugin behind ``bf16-master``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from lightning.pytorch.accelerators import Accelerator, CPUAccelerator
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.optim.master_weights import MasterWeights
from lightning_nlp.strategies.model_parallel import ModelParallel

Name = Literal[
    "32-true",
    "bf16-master",
    "bf16-mixed",
    "bf16-true",
    "16-mixed",
    "16-true",
    "64-true",
    "transformer-engine",
    "transformer-engine-float16",
    "32",
    "bf16",
    "16",
    "64",
]
Bits = Literal[32, 16, 64]  # apart, so that the parser's message about a wrong name lists the names
PrecisionName = Name | Bits
"""Lightning's names and ``bf16-master``: bfloat16 computation, float32 master weights and optimizer state."""


class BFloat16Master(Precision):
    """Forward and backward in bfloat16; parameters, gradients, optimizer state and checkpoints in float32.

    Faster than autocast, whose norms, residuals and losses are float32 and whose casts are many; validation computes as
    training does. Works with any LightningModule, on one device or under DDP.
    """

    precision = "bf16-master"  # type: ignore[assignment]

    def __init__(self) -> None:
        self._weights: MasterWeights | None = None

    def convert_module(self, module: nn.Module) -> nn.Module:
        """Remember the module; nothing in it changes."""
        self._weights = MasterWeights(module)
        return module

    def convert_input(self, data: Any) -> Any:
        """Float tensors of a batch in bfloat16."""
        return apply_to_collection(data, Tensor, lambda x: x.to(torch.bfloat16) if x.is_floating_point() else x)

    @contextmanager
    def forward_context(self) -> Iterator[None]:  # type: ignore[override]
        """Around every training, validation, test and prediction step."""
        assert self._weights is not None
        with self._weights.computing():
            yield

    def backward(self, tensor: Tensor, model: Any, optimizer: Any, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        assert self._weights is not None
        with self._weights.recomputing():
            super().backward(tensor, model, optimizer, *args, **kwargs)

    def optimizer_step(self, optimizer: Any, model: Any, closure: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        assert self._weights is not None
        output = super().optimizer_step(optimizer, model, closure, **kwargs)
        self._weights.changed()
        return output


class NarrowedWhileGathered(Precision):
    """``bf16-master`` where weights are dealt out: their strategy narrows them on the way."""

    precision = "bf16-master"  # type: ignore[assignment]


def check_precision(precision: Any) -> None:
    """Raises:
    ConfigError: no such precision; names the nearest.
    """
    names = get_args(Name)
    if precision is not None and precision not in (*names, *get_args(Bits)):
        raise ConfigError(
            f"unknown trainer.precision '{precision}'{nearest(str(precision), names)} (known: {', '.join(names)})"
        )


def settle(strategy: Strategy, accelerator: Accelerator, precision: PrecisionName | None) -> None:
    """Give ``strategy`` the plugin for what Lightning does not have, or does in another way.

    Raises:
        ConfigError: a precision that does not work under this strategy; names those that do.
    """
    name = type(strategy).__name__
    half = precision in ("16-mixed", "16", 16)
    if isinstance(strategy, ModelParallel):
        strategy.settle()
        if half or precision in ("transformer-engine", "transformer-engine-float16", "64-true", "64", 64):
            raise ConfigError(
                f"trainer.precision {precision} does not work with {name}: "
                "take bf16-master, bf16-mixed, bf16-true or 32-true"
            )
        if precision == "bf16-master":  # its own way to the same: parts are narrowed while they are gathered
            strategy.compute_dtype, strategy.precision_plugin = torch.bfloat16, NarrowedWhileGathered()
    elif precision == "bf16-master" and not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise ConfigError(
            f"trainer.precision bf16-master works on one device, with ddp, fsdp2 and tp, not with {name}: "
            "take bf16-true or bf16-mixed there"
        )
    elif half and isinstance(accelerator, CPUAccelerator):  # Lightning would quietly take bfloat16
        strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
