"""Learning-rate schedules as pure functions of the optimizer step: nothing to save, nothing to get out of step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, nearest


def warm_up(step: int, warmup: int) -> float:
    """Rises linearly from ``1 / warmup`` at step 0 to 1; the first step already learns."""
    return min(1.0, (step + 1) / warmup) if warmup > 0 else 1.0


def progress(step: int, total: int, warmup: int) -> float:
    """Share of the decay done: 0 at the end of warm-up, 1 from step ``total`` on."""
    return min(max((step - warmup) / max(total - warmup, 1), 0.0), 1.0)


def constant(step: int, *, total: int, warmup: int, final: float) -> float:
    """1 after warm-up."""
    return warm_up(step, warmup)


def linear(step: int, *, total: int, warmup: int, final: float) -> float:
    """From 1 after warm-up in a straight line to ``final`` at ``total``."""
    return warm_up(step, warmup) * (1.0 - (1.0 - final) * progress(step, total, warmup))


def cosine(step: int, *, total: int, warmup: int, final: float) -> float:
    """Half a cosine from 1 to ``final`` (Loshchilov & Hutter 2017, without restarts)."""
    share = 0.5 * (1.0 + math.cos(math.pi * progress(step, total, warmup)))
    return warm_up(step, warmup) * (final + (1.0 - final) * share)


def inverse_sqrt(step: int, *, total: int, warmup: int, final: float) -> float:
    """Falls with the root of the step after warm-up (Vaswani et al. 2017), down to ``final``; knows no end."""
    return min(warm_up(step, warmup), max(final, math.sqrt(max(warmup, 1) / (step + 1))))


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate changes over the run."""

    name: str = "cosine"
    """constant, linear, cosine or inverse_sqrt; see `lightning-nlp list schedules`."""
    warmup: int | float = 0
    """Steps of linear warm-up; a number below 1 is a share of the run."""
    final: float = 0.1
    """Learning rate at the end, as a share of the highest; of inverse_sqrt, the lowest."""

    def __post_init__(self) -> None:
        if self.name not in registry.SCHEDULES:
            hint = nearest(self.name, registry.SCHEDULES)
            raise ConfigError(f"unknown schedule.name '{self.name}'{hint} (known: {', '.join(registry.SCHEDULES)})")
        if (
            not math.isfinite(self.warmup)
            or self.warmup < 0
            or (isinstance(self.warmup, float) and self.warmup >= 1 and self.warmup % 1)
        ):
            raise ConfigError(f"schedule.warmup must be a number of steps or a share below 1, not {self.warmup}")
        if not 0 <= self.final <= 1:
            raise ConfigError(f"schedule.final must be between 0 and 1, not {self.final}")

    def warmup_steps(self, total: int) -> int:
        """Warm-up in steps for a run of ``total`` steps."""
        return round(self.warmup * total) if 0 < self.warmup < 1 else int(self.warmup)


def factor(config: ScheduleConfig, step: int, total: int) -> float:
    """What the base learning rate is multiplied with at ``step`` (0-based) of ``total``."""
    function = registry.load(registry.SCHEDULES, config.name, "schedule")
    return float(function(step, total=total, warmup=config.warmup_steps(total), final=config.final))
