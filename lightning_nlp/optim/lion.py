"""Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", program 1): the sign of a moving average.

Half of AdamW's state. Every step moves every weight by exactly the learning rate, which therefore wants to be three to
ten times smaller than AdamW's, and the decay as much larger.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_nlp.backbone.parallel.collectives import local
from lightning_nlp.optim.config import OptimizerConfig
from lightning_nlp.optim.stepping import Stepping


class Lion(Stepping):
    """``p <- (1 - lr * decay) p - lr * sign(b1 m + (1 - b1) g)``, then ``m <- b2 m + (1 - b2) g``."""

    def __init__(
        self,
        params: Any,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def update(self) -> None:
        for group in self.param_groups:
            used = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not used:
                continue
            for parameter in used:
                if not self.state[parameter]:
                    self.state[parameter]["exp_avg"] = torch.zeros_like(parameter)
            weights: list[Tensor] = [local(parameter) for parameter in used]
            gradients = [local(parameter.grad) for parameter in used]
            averages = [local(self.state[parameter]["exp_avg"]) for parameter in used]
            first, second = group["betas"]
            updates = torch._foreach_lerp(averages, gradients, 1 - first)
            torch._foreach_sign_(updates)
            torch._foreach_lerp_(averages, gradients, 1 - second)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, updates, alpha=-group["lr"])


def lion(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Lion as configured."""
    return Lion(groups, config.lr, **config.settings)
