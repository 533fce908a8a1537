"""Optimizers by name, and putting a command's values over those of a restored checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.optim.groups import UNDECAYED, Scale, parameter_groups

FUSED_DEVICES = {"cpu", "cuda", "mps", "xpu"}


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its settings."""

    name: str = "adamw"
    """adamw or sgd; see `lightning-nlp list optimizers`."""
    lr: float = 1e-3
    """Highest learning rate; the schedule multiplies it."""
    weight_decay: float = 0.1
    """Of matrices; norms, biases and embeddings are not decayed."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of AdamW's first and second moment."""
    eps: float = 1e-8
    """AdamW's division guard."""
    momentum: float | None = None
    """SGD only."""
    nesterov: bool = False
    """SGD only."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(map(float, self.betas)))
        if self.name not in registry.OPTIMIZERS:
            hint = nearest(self.name, registry.OPTIMIZERS)
            raise ConfigError(f"unknown optimizer.name '{self.name}'{hint} (known: {', '.join(registry.OPTIMIZERS)})")
        if self.name != "sgd" and (self.momentum is not None or self.nesterov):
            raise ConfigError(f"optimizer.momentum and nesterov belong to sgd, optimizer.name is {self.name}")
        if self.nesterov and not self.momentum:
            raise ConfigError("optimizer.nesterov needs optimizer.momentum")
        if not all(map(math.isfinite, (self.lr, self.weight_decay, self.eps, self.momentum or 0.0))):
            raise ConfigError("optimizer.lr, weight_decay, eps and momentum must be finite numbers")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ConfigError(f"optimizer.momentum must be in [0, 1), not {self.momentum}")
        if self.lr <= 0 or self.weight_decay < 0 or self.eps <= 0:
            raise ConfigError("optimizer.lr and eps must be positive, optimizer.weight_decay not negative")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optimizer.betas must be two numbers in [0, 1), not {self.betas}")


def adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), fused where the device can: one kernel for all parameters."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    fused = all(item.device.type in FUSED_DEVICES and item.is_floating_point() for item in parameters)
    optimizer = torch.optim.AdamW(
        groups,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=fused or None,  # None: PyTorch takes the next best for the device
    )
    # Lightning does not unscale fp16 gradients for an optimizer that offers to do it in its step; they would be
    # clipped and logged with the loss scale still in them.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Stochastic gradient descent, with momentum if asked."""
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum or 0.0, nesterov=config.nesterov)


def build_optimizer(
    module: nn.Module, config: OptimizerConfig, lr_scale: Scale = lambda name: 1.0
) -> torch.optim.Optimizer:
    """The configured optimizer over all trainable parameters of ``module``.

    Args:
        lr_scale: factor of a parameter's learning rate, by its name (muP).

    Raises:
        ConfigError: every parameter is frozen.
    """
    groups = parameter_groups(module, config.weight_decay, lr_scale=lr_scale)
    if not groups:
        raise ConfigError("there is nothing to train: every parameter is frozen")
    optimizer: torch.optim.Optimizer = registry.load(registry.OPTIMIZERS, config.name, "optimizer")(groups, config)
    for group in optimizer.param_groups:
        group["initial_lr"], group["optimizer"] = config.lr * group["lr_scale"], config.name
    optimizer.register_load_state_dict_pre_hook(check_same_kind)
    return optimizer


def check_same_kind(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Refuse the state of another kind of optimizer, which PyTorch would take and stumble over later.

    Raises:
        ConfigError: ``state`` is that of another optimizer; names both.
    """
    ours, saved = optimizer.param_groups[0]["optimizer"], state["param_groups"][0].get("optimizer")
    if saved is not None and saved != ours:
        raise ConfigError(
            f"optimizer.name is {ours}, but the checkpoint was trained with {saved}: "
            f"go on with {saved}, or start a new run from its weights with --init_from"
        )


def apply_hyperparameters(optimizer: torch.optim.Optimizer, config: OptimizerConfig) -> None:
    """Set the values of ``config`` on an optimizer whose state came from a checkpoint."""
    for group in optimizer.param_groups:
        scale = group.get("lr_scale", 1.0)
        group["initial_lr"] = config.lr * scale
        if group.get("name") != UNDECAYED:
            group["weight_decay"] = config.weight_decay / scale
        for name in ("betas", "eps", "momentum", "nesterov"):
            if name in group:
                value = getattr(config, name)
                group[name] = 0.0 if value is None else value
