"""Adafactor (Shazeer & Stern 2018, algorithms 4 and 5): second moments of a matrix as one value a row and a column.

Why not ``torch.optim.Adafactor``: it caps the learning rate at ``1 / sqrt(step)`` whatever the schedule says, compares
mean squared gradients with the precision of their type (1e-7), which in large models they are below, reads numbers back
from the device twice a parameter, and has no first moment and no absolute rate.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_nlp.optim.config import OptimizerConfig
from lightning_nlp.optim.sharding import everywhere, whole
from lightning_nlp.optim.stepping import Stepping

DECAY_POWER = -0.8
"""Second moments keep ``1 - step ** power`` of what they were: little at first, so that no bias needs correcting."""
CLIP = 1.0
"""Largest root mean square of an update, before the rate."""
LEAST_SIZE = 1e-3
"""A parameter that is smaller counts as this large, or it would never leave zero."""


class Adafactor(Stepping):
    """Adam's update from factored second moments, its size limited; by default relative to the parameter's own size.

    Args:
        params: parameters or groups; the last two dimensions of a tensor are factored, a vector keeps all moments.
        lr: with ``scale_parameter`` a share of the parameter's root mean square, else the size of an update.
        momentum: decay of a first moment of the updates (0: none is kept).
        eps: least squared gradient.
        scale_parameter: multiply updates with the parameter's root mean square.
        weight_decay: decoupled; a step takes ``lr * weight_decay`` off.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.0,
        eps: float = 1e-30,
        scale_parameter: bool = True,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "eps": eps, "scale_parameter": scale_parameter}
        super().__init__(params, {**defaults, "weight_decay": weight_decay})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As ``Optimizer``'s, which rounds moments to the type of their parameters: here they stay as wide as saved."""
        saved: dict[str, Any] = {}
        last = self.register_load_state_dict_pre_hook(lambda _, adapted: saved.update(adapted))
        super().load_state_dict(state_dict)
        last.remove()
        numbers = [number for group in saved["param_groups"] for number in group["params"]]
        ours = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(numbers, ours, strict=True):
            state = self.state[parameter]
            for key, value in saved["state"].get(number, {}).items():
                if isinstance(value, Tensor) and value.dtype != state[key].dtype:
                    state[key] = value.to(state[key].device)

    def update(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, wide(parameter.grad), group)

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)  # on the CPU: reading it waits for nobody
            if parameter.ndim > 1:
                state["row"] = torch.zeros(parameter.shape[:-1], dtype=gradient.dtype, device=gradient.device)
                columns = parameter.shape[:-2] + parameter.shape[-1:]
                state["column"] = torch.zeros(columns, dtype=gradient.dtype, device=gradient.device)
            else:
                state["square"] = torch.zeros_like(gradient)
        state["step"] += 1
        share = state["step"].item() ** DECAY_POWER
        squares = gradient.square() + group["eps"]
        if parameter.ndim > 1:
            row: Tensor = state["row"].lerp_(mean(squares, -1), share)
            column: Tensor = state["column"].lerp_(mean(squares, -2), share)
            by_row = (row / row.mean(-1, keepdim=True)).rsqrt().unsqueeze(-1)
            by_column = column.rsqrt().unsqueeze(-2)
            update = gradient * everywhere(by_row, gradient) * everywhere(by_column, gradient)
        else:
            update = gradient * state["square"].lerp_(squares, share).rsqrt()
        size = group["lr"] / (rms(update) / CLIP).clamp(min=1.0)
        if group["scale_parameter"]:
            size = size * rms(wide(parameter)).clamp(min=LEAST_SIZE)
        update = update * everywhere(size, gradient)
        if group["momentum"]:
            if "exp_avg" not in state:
                state["exp_avg"] = torch.zeros_like(gradient)
            update = state["exp_avg"].lerp_(update, 1 - group["momentum"])
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update)


def wide(tensor: Tensor) -> Tensor:
    """At least float32: squares of narrow gradients would not be worth keeping."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def mean(tensor: Tensor, dim: int) -> Tensor:
    """Over all ranks, the same on all; sums first, since ranks may have parts of different sizes."""
    return whole(tensor.sum(dim)) / tensor.shape[dim]


def rms(tensor: Tensor) -> Tensor:
    """Root mean square of the whole tensor: a number on its device."""
    return (whole(tensor.square().sum()) / tensor.numel()).sqrt()


def adafactor(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Adafactor as configured."""
    return Adafactor(groups, config.lr, **config.settings)
