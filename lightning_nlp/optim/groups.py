"""Which parameters are decayed: matrices are; norms, biases and embeddings are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

Rule = Callable[[nn.Module, nn.Parameter], bool]
"""``(the module that owns it, the parameter) -> it is not decayed``."""


def all_but_matrices(owner: nn.Module, parameter: nn.Parameter) -> bool:
    """Vectors and embeddings are not decayed: the default rule."""
    return parameter.ndim < 2 or isinstance(owner, nn.Embedding)


def parameter_groups(module: nn.Module, weight_decay: float, no_decay: Rule = all_but_matrices) -> list[dict[str, Any]]:
    """Split the trainable parameters of ``module`` into a decayed and an undecayed group.

    A shared parameter is undecayed if ``no_decay`` says so for one of its owners: an embedding stays undecayed also
    when an output layer shares its weight.

    Raises:
        RuntimeError: a trainable parameter is in no group, or in two; names it.
    """
    exempt = {
        id(parameter)
        for owner in module.modules()
        for parameter in owner.parameters(recurse=False)
        if no_decay(owner, parameter)
    }
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for _, parameter in module.named_parameters():  # a shared parameter is listed once
        if parameter.requires_grad:
            (free if id(parameter) in exempt else decayed).append(parameter)
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
