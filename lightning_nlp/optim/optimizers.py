"""Optimizers by name, over groups of parameters."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.config import OptimizerConfig
from lightning_nlp.optim.groups import Scale, no_other_scale, parameter_groups
from lightning_nlp.optim.matrices import Matrices, hidden_matrices, none_inside
from lightning_nlp.optim.restoring import adapt_state, apply_hyperparameters

__all__ = ["OptimizerConfig", "apply_hyperparameters", "build_optimizer"]

FUSED_DEVICES = {"cpu", "cuda", "mps", "xpu"}
LIKE_ADAM = ("adamw", "lion", "muon")
"""Optimizers whose updates have a size of their own: what muP says of Adam's learning rates holds for them."""


def can_fuse(groups: list[dict[str, Any]]) -> bool:
    """Whether one kernel can update all parameters."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    return all(item.device.type in FUSED_DEVICES and item.is_floating_point() for item in parameters)


def adamw(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), fused where the device can: one kernel for all parameters."""
    optimizer = torch.optim.AdamW(
        groups,
        lr=config.lr,
        **config.settings,
        fused=can_fuse(groups) or None,  # None: PyTorch takes the next best for the device
    )
    # Lightning does not unscale fp16 gradients for an optimizer that offers to do it in its step; they would be
    # clipped and logged with the loss scale still in them.
    optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Stochastic gradient descent, with momentum if asked."""
    return torch.optim.SGD(groups, lr=config.lr, **config.settings)


def build_optimizer(
    module: nn.Module,
    config: OptimizerConfig,
    lr_scale: Scale = no_other_scale,
    matrices: Matrices = none_inside,
) -> torch.optim.Optimizer:
    """The configured optimizer over all trainable parameters of ``module``.

    Args:
        lr_scale: factor of a parameter's learning rate, by its name (muP), as Adam wants it.
        matrices: which parameters are matrices inside blocks, by name.

    Raises:
        ConfigError: every parameter is frozen; a rule of ``optimizer.groups`` matches nothing; ``lr_scale`` is not 1
            and the optimizer's rates do not transfer so; there is nothing for muon.
    """
    hidden = hidden_matrices(module, matrices) if config.name == "muon" else {}

    def scale(name: str) -> float:
        value = lr_scale(name)
        if value != 1.0 and config.name not in LIKE_ADAM:
            raise ConfigError(
                f"optimizer.name is {config.name}, but the learning rates of backbone.init mup are those of Adam: "
                f"use {', '.join(LIKE_ADAM[:-1])} or {LIKE_ADAM[-1]}"
            )
        # Adam's updates are of low rank, their norm grows with the width; an orthogonal one's of the same size with
        # its root.
        return math.sqrt(value) if name in hidden else value

    def kind(name: str) -> dict[str, Any]:
        return {"muon": name in hidden} if config.name == "muon" else {}

    groups = parameter_groups(module, config.weight_decay, lr_scale=scale, rules=config.groups, kind=kind)
    if not groups:
        raise ConfigError("there is nothing to train: every parameter is frozen")
    for group in groups:
        if group.get("muon"):
            group["rows"] = [hidden[name] for name in group["param_names"]]
    optimizer: torch.optim.Optimizer = registry.load(registry.OPTIMIZERS, config.name, "optimizer")(groups, config)
    for group in optimizer.param_groups:
        group["initial_lr"], group["optimizer"] = config.lr * group["lr_scale"], config.name
    optimizer.register_load_state_dict_pre_hook(adapt_state)
    return optimizer
