"""Which parameters are decayed: matrices are; norms, biases and embeddings are not."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters of ``module`` into a decayed and an undecayed group.

    An embedding stays undecayed also when an output layer shares its weight.

    Raises:
        RuntimeError: a trainable parameter is in no group, or in two; names it.
    """
    embeddings = {id(child.weight) for child in module.modules() if isinstance(child, nn.Embedding)}
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for _, parameter in module.named_parameters():  # a shared parameter is listed once
        if parameter.requires_grad:
            (decayed if parameter.ndim >= 2 and id(parameter) not in embeddings else free).append(parameter)
    groups = [
        {"name": "decayed", "params": decayed, "weight_decay": weight_decay},
        {"name": "undecayed", "params": free, "weight_decay": 0.0},
    ]
    check_cover(module, groups)
    return [group for group in groups if group["params"]]


def check_cover(module: nn.Module, groups: list[dict[str, Any]]) -> None:
    """Assert that every trainable parameter is in exactly one group.

    Raises:
        RuntimeError: names the first parameter that is not.
    """
    counts: dict[int, int] = {}
    for group in groups:
        for parameter in group["params"]:
            counts[id(parameter)] = counts.get(id(parameter), 0) + 1
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and counts.get(id(parameter), 0) != 1:
            raise RuntimeError(f"parameter {name} is in {counts.get(id(parameter), 0)} optimizer groups")
