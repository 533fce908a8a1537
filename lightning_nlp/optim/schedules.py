"""Learning-rate schedules as pure functions of the optimizer step: nothing to save, nothing to get out of step.

Every function gets the step (counted from 0), ``total`` steps of the run, ``warmup`` steps and the ``final`` share, and
gives the factor of the highest learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.optim.config import listed

FORMS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1.0 - x,
    "sqrt": lambda x: 1.0 - math.sqrt(x),  # Hägele et al. 2024
    "cosine": lambda x: 0.5 * (1.0 + math.cos(math.pi * x)),
}
"""Ways down from 1 to 0 as ``x`` goes from 0 to 1."""
SETTINGS: dict[str, dict[str, Any]] = {
    "polynomial": {"power": 2.0},
    "wsd": {"decay": 0.2, "form": "sqrt"},
    "restarts": {"cycle": 0.25, "cycle_growth": 1.0, "form": "cosine"},
}
"""What belongs to which schedule beside warm-up and final share, with what holds when nothing is given."""
OTHER_NAMES = {"noam": "inverse_sqrt", "sgdr": "restarts", "cosine_restarts": "restarts", "cyclic": "restarts"}
RAMPS: dict[str, Callable[[float], float]] = {
    "none": lambda x: 1.0,
    "sqrt": math.sqrt,
    "linear": lambda x: x,
}
"""Learning rate of a batch that is not full-grown, by its share of the last one."""


def warm_up(step: int, warmup: int) -> float:
    """Rises linearly from ``1 / warmup`` at step 0 to 1; the first step already learns."""
    return min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0


def progress(step: int, total: int, start: int) -> float:
    """Share of the way from step ``start`` to ``total``: 0 before, 1 behind."""
    return min(max((step - start) / max(total - start, 1), 0.0), 1.0)


def down(form: str, x: float, final: float) -> float:
    """From 1 at ``x`` = 0 to ``final`` at 1."""
    return final + (1.0 - final) * FORMS[form](x)


def constant(step: int, *, total: int, warmup: int, final: float) -> float:
    """1 after warm-up."""
    return warm_up(step, warmup)


def linear(step: int, *, total: int, warmup: int, final: float) -> float:
    """From 1 after warm-up in a straight line to ``final`` at ``total``."""
    return warm_up(step, warmup) * down("linear", progress(step, total, warmup), final)


def cosine(step: int, *, total: int, warmup: int, final: float) -> float:
    """Half a cosine from 1 to ``final`` (Loshchilov & Hutter 2017, without restarts)."""
    return warm_up(step, warmup) * down("cosine", progress(step, total, warmup), final)


def polynomial(step: int, *, total: int, warmup: int, final: float, power: float) -> float:
    """``(1 - x) ** power`` of the way from ``final`` to 1; 1 is a straight line, 2 is steep at first."""
    return warm_up(step, warmup) * (final + (1.0 - final) * (1.0 - progress(step, total, warmup)) ** power)


def inverse_sqrt(step: int, *, total: int, warmup: int, final: float) -> float:
    """Falls with the root of the step after warm-up, down to ``final``; knows no end.

    Vaswani et al. 2017 ("Noam"): their ``d_model^-0.5 min(t^-0.5, t w^-1.5)`` is this with ``lr = (d_model w)^-0.5``.
    """
    return min(warm_up(step, warmup), max(final, math.sqrt(max(warmup, 1) / (step + 1))))


def wsd(step: int, *, total: int, warmup: int, final: float, decay: float, form: str) -> float:
    """Warm-up, 1, and over the last ``decay`` steps down to ``final`` (Hu et al. 2024, Hägele et al. 2024)."""
    start = max(total - in_steps(decay, total), warmup)
    return warm_up(step, warmup) * down(form, progress(step, total, start), final)


def restarts(
    step: int, *, total: int, warmup: int, final: float, cycle: float, cycle_growth: float, form: str
) -> float:
    """From 1 to ``final`` again and again, each cycle ``cycle_growth`` times as long (SGDR; Loshchilov & Hutter)."""
    length = max(cycle * (total - warmup) if cycle < 1 else float(cycle), 1.0)
    place = float(max(step - warmup, 0))
    if cycle_growth == 1.0:
        place %= length
    while place >= length:
        place, length = place - length, length * cycle_growth
    return warm_up(step, warmup) * down(form, place / length, final)


def in_steps(value: int | float, total: int) -> int:
    """A number of steps, or a share below 1 of ``total``, in steps."""
    return round(value * total) if 0 < value < 1 else int(value)


def is_steps(value: int | float) -> bool:
    """True for what :func:`in_steps` understands."""
    return math.isfinite(value) and value >= 0 and not (isinstance(value, float) and value >= 1 and value % 1)


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes over the run; settings of another schedule are refused."""

    name: str = "cosine"
    """constant, linear, cosine, polynomial, inverse_sqrt, wsd, restarts; see `lightning-nlp list schedules --plot`."""
    warmup: int | float = 0
    """Steps of linear warm-up; a number below 1 is a share of the run."""
    final: float = 0.1
    """Learning rate at the end, as a share of the highest; of inverse_sqrt, the lowest."""
    power: float | None = None
    """polynomial: its exponent (default: 2)."""
    decay: int | float | None = None
    """wsd: steps of the decay at the end, or a share of the run (default: 0.2)."""
    form: Literal["linear", "sqrt", "cosine"] | None = None
    """Way down of wsd (default: sqrt, which is 1 - sqrt(x)) and restarts (cosine)."""
    cycle: int | float | None = None
    """restarts: steps of the first cycle, or a share of what follows warm-up (default: 0.25)."""
    cycle_growth: float | None = None
    """restarts: how many times as long each cycle is as the one before (default: 1)."""
    ramp: Literal["none", "sqrt", "linear"] = "none"
    """Lower rate while `data.batch_ramp` has not reached its last size: by the root of the batch's share, or by it."""

    def __post_init__(self) -> None:
        if self.name not in registry.SCHEDULES:
            known = OTHER_NAMES.get(self.name.lower())
            hint = f"; did you mean '{known}'?" if known else nearest(self.name, registry.SCHEDULES)
            raise ConfigError(f"unknown schedule.name '{self.name}'{hint} (known: {', '.join(registry.SCHEDULES)})")
        own = SETTINGS.get(self.name, {})
        for name in dict.fromkeys(name for settings in SETTINGS.values() for name in settings):
            if name not in own and getattr(self, name) is not None:
                owners = listed([schedule for schedule, settings in SETTINGS.items() if name in settings])
                raise ConfigError(
                    f"schedule.{name} belongs to {owners}, schedule.name is {self.name} (null takes it back)"
                )
        self._check()

    def _check(self) -> None:
        for name in ("warmup", "decay", "cycle"):
            value = getattr(self, name)
            if value is not None and not (is_steps(value) and (value > 0 or name == "warmup")):
                raise ConfigError(f"schedule.{name} must be a number of steps or a share below 1, not {value}")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"schedule.final must be between 0 and 1, not {self.final}")
        if self.power is not None and not (math.isfinite(self.power) and self.power > 0):
            raise ConfigError(f"schedule.power must be positive, not {self.power}")
        if self.cycle_growth is not None and not (math.isfinite(self.cycle_growth) and self.cycle_growth >= 1):
            raise ConfigError(f"schedule.cycle_growth must be at least 1, not {self.cycle_growth}")
        for name, choices in (("form", FORMS), ("ramp", RAMPS)):
            value = getattr(self, name)
            if value is not None and value not in choices:
                raise ConfigError(
                    f"schedule.{name} must be one of {', '.join(choices)}, not '{value}'{nearest(str(value), choices)}"
                )

    @property
    def settings(self) -> dict[str, Any]:
        """What this schedule has beside warm-up and final share: as given, else its defaults."""
        own = SETTINGS.get(self.name, {})
        given = {name: getattr(self, name) for name in own}
        return {name: own[name] if value is None else value for name, value in given.items()}

    def warmup_steps(self, total: int) -> int:
        """Warm-up in steps for a run of ``total`` steps."""
        return in_steps(self.warmup, total)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint holds them; ``ScheduleConfig(**values)`` is this configuration again."""
        return asdict(self)


def factor(config: ScheduleConfig, step: int, total: int, batch_share: float = 1.0) -> float:
    """What the base learning rate is multiplied with at ``step`` (0-based) of ``total``.

    Args:
        batch_share: rows of the step's batch, as a share of what the batch will have in the end.
    """
    function = registry.load(registry.SCHEDULES, config.name, "schedule")
    value = function(step, total=total, warmup=config.warmup_steps(total), final=config.final, **config.settings)
    return float(value) * RAMPS[config.ramp](batch_share)
