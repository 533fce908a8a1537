"""The settings of optimizers, and the rules for parameters that want others; checked here, built elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, nearest

SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"betas": (0.9, 0.95), "eps": 1e-8},
    "sgd": {"momentum": 0.0, "nesterov": False},
    "adafactor": {"momentum": 0.0, "eps": 1e-30, "scale_parameter": True},
    "lion": {"betas": (0.9, 0.99)},
    "muon": {"betas": (0.9, 0.95), "eps": 1e-8, "momentum": 0.95, "nesterov": True},
}
"""What belongs to which optimizer beside the learning rate and weight decay, with what holds when nothing is given."""
COMMON = SETTINGS["adamw"] | {"nesterov": False}
"""Values that configurations saved before each optimizer had settings of its own hold for all; they say nothing."""


@dataclass(frozen=True)
class ParameterRule:
    """Other settings for the parameters that a pattern stands for."""

    match: str
    """Pattern of names, as in `freeze`: a module or parameter, or the end of its name; `*` stands for anything."""
    lr_scale: float = 1.0
    """Factor of the learning rate."""
    weight_decay: float | None = None
    """Instead of the optimizer's; also for norms, biases and embeddings."""

    def __post_init__(self) -> None:
        key = f"optimizer.groups: '{self.match}'"
        if not self.match:
            raise ConfigError("optimizer.groups: a rule's match is empty; '*' stands for every parameter")
        if not (math.isfinite(self.lr_scale) and self.lr_scale > 0):
            raise ConfigError(f"{key}: lr_scale must be positive, not {self.lr_scale}; model.freeze holds weights")
        if self.weight_decay is not None and not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ConfigError(f"{key}: weight_decay must not be negative, not {self.weight_decay}")


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its settings; those it does not have are refused."""

    name: str = "adamw"
    """adamw, sgd, adafactor, lion or muon; see `lightning-nlp list optimizers`."""
    lr: float = 1e-3
    """Highest learning rate; the schedule multiplies it."""
    weight_decay: float = 0.1
    """Of matrices; norms, biases and embeddings are not decayed. A step takes off lr * weight_decay of a weight."""
    betas: tuple[float, float] | None = None
    """adamw, muon: decay of the two moments (default: 0.9, 0.95); lion: of update and momentum (0.9, 0.99)."""
    eps: float | None = None
    """adamw, muon: division guard (default: 1e-8); adafactor: least squared gradient (1e-30)."""
    momentum: float | None = None
    """sgd (default: 0), muon (0.95); adafactor: decay of its first moment (0: none)."""
    nesterov: bool | None = None
    """sgd (default: false), muon (true): look a step ahead along the momentum."""
    scale_parameter: bool | None = None
    """adafactor: the rate is a share of each matrix's own size (default: true)."""
    groups: list[ParameterRule] = field(default_factory=list)
    """Rules for some parameters: `[{match: attention, lr_scale: 0.5, weight_decay: 0}]`; the first that fits holds."""

    def __post_init__(self) -> None:
        if self.name not in registry.OPTIMIZERS:
            hint = nearest(self.name, registry.OPTIMIZERS)
            raise ConfigError(f"unknown optimizer.name '{self.name}'{hint} (known: {', '.join(registry.OPTIMIZERS)})")
        self._settle("groups", [ParameterRule(**r) if isinstance(r, Mapping) else r for r in self.groups])
        if self.betas is not None:
            self._settle("betas", tuple(map(float, self.betas)))
        own = SETTINGS[self.name]
        for name in (known.name for known in fields(self)):
            owners = [optimizer for optimizer, settings in SETTINGS.items() if name in settings]
            value = getattr(self, name)
            if owners and name not in own and value is not None:
                if name not in COMMON or value != COMMON[name]:
                    raise ConfigError(
                        f"optimizer.{name} belongs to {listed(owners)}, optimizer.name is {self.name}"
                        " (null takes it back)"
                    )
                self._settle(name, None)
        self._check()

    def _settle(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def settings(self) -> dict[str, Any]:
        """What this optimizer has beside rate, decay and groups: as given, else its defaults."""
        given = {name: getattr(self, name) for name in SETTINGS[self.name]}
        return {name: SETTINGS[self.name][name] if value is None else value for name, value in given.items()}

    def _check(self) -> None:
        if self.settings.get("nesterov") and not self.settings["momentum"]:
            raise ConfigError("optimizer.nesterov needs optimizer.momentum")
        if not all(map(math.isfinite, (self.lr, self.weight_decay, self.eps or 1.0, self.momentum or 0.0))):
            raise ConfigError("optimizer.lr, weight_decay, eps and momentum must be finite numbers")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            raise ConfigError(f"optimizer.momentum must be in [0, 1), not {self.momentum}")
        if self.lr <= 0 or self.weight_decay < 0 or (self.eps is not None and self.eps <= 0):
            raise ConfigError("optimizer.lr and eps must be positive, optimizer.weight_decay not negative")
        if self.betas is not None and (len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas)):
            raise ConfigError(f"optimizer.betas must be two numbers in [0, 1), not {self.betas}")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint holds them; ``OptimizerConfig(**values)`` is this configuration again."""
        return {**asdict(self), "betas": None if self.betas is None else list(self.betas)}


def listed(names: list[str]) -> str:
    """``"a, b and c"``."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
