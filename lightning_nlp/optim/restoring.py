"""Going on with an optimizer's saved state: of the same kind only, by parameters' names, with this command's values."""

from __future__ import annotations

from typing import Any

import torch

from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.config import OptimizerConfig
from lightning_nlp.optim.groups import DECAYED, STRUCTURE, decay_of

PLAIN = {"name": DECAYED, "rule": None, "width_scale": 1.0}
"""What a group is that somebody else made."""


def adapt_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The saved state with its parameters in the groups that they have now; rules may have changed.

    Raises:
        ConfigError: ``state`` is of another kind of optimizer, of other parameters, or (saved by an older version,
            without their names) of other groups.
    """
    check_same_kind(optimizer, state)
    saved, ours = state["param_groups"], optimizer.param_groups
    if all("param_names" in group for group in saved):
        places = {
            name: (number, group)
            for group in saved
            for name, number in zip(group["param_names"], group["params"], strict=True)
        }
        names = {name for group in ours for name in group["param_names"]}
        if names != places.keys():
            raise ConfigError(f"the checkpoint's optimizer {difference(names, set(places))}")
        found = [[places[name] for name in group["param_names"]] for group in ours]
        numbers = [[number for number, _ in several] for several in found]
        sources = [several[0][1] for several in found]
    elif [len(group["params"]) for group in saved] == [len(group["params"]) for group in ours]:
        numbers, sources = [group["params"] for group in saved], saved
    else:
        raise ConfigError("the checkpoint's optimizer has other groups and no names: go on without optimizer.groups")
    groups = [
        {**source, **{key: group[key] for key in STRUCTURE if key in group}, "params": several}
        for group, source, several in zip(ours, sources, numbers, strict=True)
    ]
    return {**state, "param_groups": groups}


def difference(ours: set[str], saved: set[str]) -> str:
    """``"has no state of a.weight"``: the first name that only one side has."""
    if missing := sorted(ours - saved):
        return f"has no state of {missing[0]}" + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
    return f"has state of {sorted(saved - ours)[0]}, which is not trained"


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
        for key, value in PLAIN.items():
            group.setdefault(key, value)
        rule = group["rule"]
        group["lr_scale"] = group["width_scale"] * (1.0 if rule is None else config.groups[rule].lr_scale)
        group["initial_lr"] = config.lr * group["lr_scale"]
        group["weight_decay"] = decay_of(group, config.weight_decay, config.groups)
        group.update({name: value for name, value in config.settings.items() if name in group})
