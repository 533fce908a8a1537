"""Which parameters are decayed, and which have settings of their own: every trainable one is in exactly one group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from lightning_nlp.backbone.selection import select
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.config import ParameterRule

DECAYED, UNDECAYED = "decayed", "undecayed"
Scale = Callable[[str], float]
"""A parameter's name to the factor of its learning rate."""
Rule = Callable[[nn.Module, nn.Parameter], bool]
"""``(the module that owns it, the parameter) -> it is not decayed``."""
STRUCTURE = ("name", "lr_scale", "width_scale", "rule", "optimizer", "muon", "param_names")
"""Keys of a group that say what it is, and so are never those of a checkpoint."""


def all_but_matrices(owner: nn.Module, parameter: nn.Parameter) -> bool:
    """Vectors and embeddings are not decayed: the default rule."""
    return parameter.ndim < 2 or isinstance(owner, nn.Embedding)


def no_other_scale(name: str) -> float:
    """One learning rate for all."""
    return 1.0


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    no_decay: Rule = all_but_matrices,
    lr_scale: Scale = no_other_scale,
    rules: Sequence[ParameterRule] = (),
    kind: Callable[[str], dict[str, Any]] = lambda name: {},
) -> list[dict[str, Any]]:
    """Split the trainable parameters of ``module`` into decayed and undecayed groups.

    There is a pair of groups for every rule, learning-rate scale and kind, the plain ones first. A shared parameter is
    undecayed if ``no_decay`` says so for one of its owners: an embedding stays undecayed also when an output layer
    shares its weight. Decay is divided by ``lr_scale`` (that of a width, not a rule's), so that what a step takes off a
    weight does not depend on it.

    Args:
        rules: ``optimizer.groups``.
        kind: a parameter's name to more values of its group, which split groups where they differ.

    Raises:
        ConfigError: a rule matches no trainable parameter, or only what rules before it match; names it.
        RuntimeError: a trainable parameter is in no group, or in two; names it.
    """
    exempt = {
        id(parameter)
        for owner in module.modules()
        for parameter in owner.parameters(recurse=False)
        if no_decay(owner, parameter)
    }
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    ruled = matched(rules, list(trained))
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, parameter in trained.items():  # a shared parameter is listed once
        decay = UNDECAYED if id(parameter) in exempt else DECAYED
        key = (ruled.get(name, -1), -lr_scale(name), tuple(sorted(kind(name).items())), decay)
        found.setdefault(key, []).append(name)
    groups = []
    for rule, scale, values, decay in sorted(found):
        names = found[rule, scale, values, decay]
        group = {
            "name": decay,
            "rule": None if rule < 0 else rule,
            "width_scale": -scale,
            "lr_scale": -scale * (1.0 if rule < 0 else rules[rule].lr_scale),
            "params": [trained[name] for name in names],
            "param_names": names,
            **dict(values),
        }
        groups.append({**group, "weight_decay": decay_of(group, weight_decay, rules)})
    check_cover(module, groups)
    return groups


def matched(rules: Sequence[ParameterRule], names: list[str]) -> dict[str, int]:
    """``{name: number of the first rule that matches it}``.

    Raises:
        ConfigError: a rule matches nothing, or nothing that is left; names its pattern.
    """
    found: dict[str, int] = {}
    for number, rule in enumerate(rules):
        hits = select([rule.match], names, "optimizer.groups")
        new = [name for name in hits if name not in found]
        if not new:
            raise ConfigError(
                f"optimizer.groups: all that '{rule.match}' matches was matched before, by "
                f"'{rules[found[hits[0]]].match}': the first rule that fits holds, so put special ones first"
            )
        found.update(dict.fromkeys(new, number))
    return found


def decay_of(group: dict[str, Any], weight_decay: float, rules: Sequence[ParameterRule]) -> float:
    """Weight decay of a group: that of its rule if it says one, else ``weight_decay`` of what is decayed."""
    own = None if group["rule"] is None else rules[group["rule"]].weight_decay
    value = own if own is not None else weight_decay if group["name"] == DECAYED else 0.0
    return float(value / group["width_scale"])


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
