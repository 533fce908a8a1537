"""Which parameters are decayed: matrices are; norms, biases and embeddings are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

DECAYED, UNDECAYED = "decayed", "undecayed"
Scale = Callable[[str], float]
"""A parameter's name to the factor of its learning rate."""
Rule = Callable[[nn.Module, nn.Parameter], bool]
"""``(the module that owns it, the parameter) -> it is not decayed``."""


def all_but_matrices(owner: nn.Module, parameter: nn.Parameter) -> bool:
    """Vectors and embeddings are not decayed: the default rule."""
    return parameter.ndim < 2 or isinstance(owner, nn.Embedding)


def parameter_groups(
    module: nn.Module, weight_decay: float, no_decay: Rule = all_but_matrices, lr_scale: Scale = lambda name: 1.0
) -> list[dict[str, Any]]:
    """Split the trainable parameters of ``module`` into decayed and undecayed groups, one pair a learning-rate scale.

    A shared parameter is undecayed if ``no_decay`` says so for one of its owners: an embedding stays undecayed also
    when an output layer shares its weight. Decay is divided by the scale, so that what a step takes off a weight does
    not depend on it.

    Raises:
        RuntimeError: a trainable parameter is in no group, or in two; names it.
    """
    exempt = {
        id(parameter)
        for owner in module.modules()
        for parameter in owner.parameters(recurse=False)
        if no_decay(owner, parameter)
    }
    found: dict[tuple[float, str], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():  # a shared parameter is listed once
        if parameter.requires_grad:
            kind = UNDECAYED if id(parameter) in exempt else DECAYED
            found.setdefault((lr_scale(name), kind), []).append(parameter)
    groups = [
        {
            "name": kind,
            "lr_scale": scale,
            "params": found[scale, kind],
            "weight_decay": weight_decay / scale if kind == DECAYED else 0.0,
        }
        for scale, kind in sorted(found, key=lambda key: (-key[0], key[1]))  # the plain learning rate first
    ]
    check_cover(module, groups)
    return groups


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
