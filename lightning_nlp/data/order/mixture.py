"""Several sources in one stream: how often each is drawn from, by step; the draws are exact and need no random state.

Rates follow T5 (Raffel et al. 2020): proportional to ``min(rows, cap) ** (1 / temperature)``, or given weights, which
may name groups of sources (mixtures of mixtures), and may change with the step (Wang et al. 2020, jiant).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lightning_nlp.data.permutation import share
from lightning_nlp.data.sources.source import Format, SourceConfig
from lightning_nlp.errors import ConfigError, nearest

GOLDEN = (math.sqrt(5) - 1) / 2
HOMOGENEOUS_STREAM = 11
"""Keeps the random numbers of the mixture apart from those of block order and buckets."""


@dataclass(frozen=True)
class MixtureSource:
    """One source of a mixture; what is not given is as the data's own setting."""

    path: str | list[str]
    """As ``data.path``."""
    format: Format = "auto"
    hub_config: str | None = None
    streaming: bool = False
    take: int | None = None
    columns: dict[str, str] = field(default_factory=dict)
    """``{field: column}`` where columns are called otherwise here."""
    size: int | None = None
    """Rows to reckon with in proportional rates; a stream has no other size."""

    def config(self, shared: SourceConfig) -> SourceConfig:
        """What it is opened with: its own settings, else the shared ones."""
        return replace(
            shared,
            path=self.path,
            format=self.format if self.format != "auto" else shared.format,
            hub_config=self.hub_config,
            streaming=self.streaming or shared.streaming,
            take=self.take if self.take is not None else shared.take,
        )


@dataclass(frozen=True)
class WeightChange:
    """A weight that moves from its first value to ``end`` within ``steps`` optimizer steps."""

    end: float
    steps: int
    curve: Literal["linear", "exponential"] = "linear"

    def __post_init__(self) -> None:
        if self.end < 0 or self.steps < 1 or (self.curve == "exponential" and not self.end):
            raise ConfigError(
                f"data.mixture.schedule: end {self.end} in {self.steps} steps, {self.curve}: ends are not negative "
                "(exponential ones positive), and steps at least 1"
            )

    def at(self, step: int, start: float) -> float:
        """The weight at ``step``."""
        part = min(step / self.steps, 1.0)
        if self.curve == "exponential":
            return start * (self.end / start) ** part
        return start + (self.end - start) * part


@dataclass(frozen=True)
class MixtureConfig:
    """Which sources, and how often each."""

    sources: dict[str, MixtureSource] = field(default_factory=dict)
    """By name; none: ``data.path`` is all there is."""
    rates: Literal["proportional", "equal", "weights"] = "proportional"
    """proportional: to ``min(rows, cap) ** (1 / temperature)``."""
    temperature: float = 1.0
    cap: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    """Of sources, or of groups."""
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    """Mixtures inside the mixture: ``{group: {source or group: weight}}``. A source may be in several."""
    schedule: dict[str, WeightChange] = field(default_factory=dict)
    """Weights that change with the step."""
    unit: Literal["documents", "tokens"] = "documents"
    """What is shared out."""
    batches: Literal["mixed", "homogeneous"] = "mixed"
    """homogeneous: all rows of a global batch are from one source."""
    exhaustion: Literal["repeat", "drop", "error"] = "repeat"
    """After ``passes`` through a source: begin it again, leave it out from then on, or stop with an error."""
    passes: int = 1

    def __post_init__(self) -> None:
        if not self.sources:
            return
        if self.temperature <= 0 or (self.cap is not None and self.cap <= 0) or self.passes < 1:
            raise ConfigError("data.mixture: temperature and cap must be positive, passes at least 1")
        if bool(self.weights) != (self.rates == "weights"):
            raise ConfigError("data.mixture.weights and data.mixture.rates weights go together: give both or neither")
        known = [*self.sources, *self.groups]
        if double := set(self.sources) & set(self.groups):
            raise ConfigError(f"data.mixture: '{min(double)}' is a source and a group")
        for key, names in {"weights": list(self.weights), "schedule": list(self.schedule)}.items():
            for name in names:
                if name not in known:
                    raise ConfigError(f"data.mixture.{key}: no source or group '{name}'{nearest(name, known)}")
        for name in self.schedule:
            if name not in self.weights:
                raise ConfigError(f"data.mixture.schedule: '{name}' has no weight to start from")
        for group, members in self.groups.items():
            for name, weight in members.items():
                if name not in known:
                    raise ConfigError(f"data.mixture.groups.{group}: there is no '{name}'{nearest(name, known)}")
                if weight < 0:
                    raise ConfigError(f"data.mixture.groups.{group}: '{name}' has the negative weight {weight}")
        if any(weight < 0 for weight in self.weights.values()):
            raise ConfigError("data.mixture.weights must not be negative")
        if self.batches == "homogeneous" and (self.unit, self.exhaustion) != ("documents", "repeat"):
            raise ConfigError(
                "data.mixture.batches homogeneous shares out batches: unit and exhaustion are for mixed ones"
            )
        if not any(self.flat(self.weights).values()) and self.weights:
            raise ConfigError("data.mixture.weights are all 0")

    @property
    def choices(self) -> str:
        """What decides which source is next; not where sources lie, which says nothing of what they hold."""
        own = {name: value for name, value in vars(self).items() if name != "sources"}
        return f"{own}; sizes { ({name: source.size for name, source in self.sources.items()}) }"

    def flat(self, weights: dict[str, float], above: tuple[str, ...] = ()) -> dict[str, float]:
        """Weights of sources alone: that of a group is shared out among its members, and sums are taken.

        Raises:
            ConfigError: a group that is inside itself.
        """
        found = dict.fromkeys(self.sources, 0.0)
        for name, weight in weights.items():
            if name in self.sources:
                found[name] += weight
                continue
            if name in above:
                raise ConfigError(f"data.mixture.groups: '{name}' is inside itself")
            inside = self.flat(self.groups[name], (*above, name))
            total = sum(inside.values())
            for source, part in inside.items():
                found[source] += weight * part / total if total else 0.0
        return found


def proportional(rows: float, temperature: float = 1.0, cap: float | None = None) -> float:
    """``min(rows, cap) ** (1 / temperature)``."""
    return float(min(rows, cap or math.inf) ** (1 / temperature))


class Rates:
    """The share of each source at a step.

    Args:
        config: of the mixture.
        sizes: ``{source: rows}``; None where a source has no known number.

    Raises:
        ConfigError: proportional rates of a source without a size.
    """

    def __init__(self, config: MixtureConfig, sizes: dict[str, int | None]) -> None:
        self.config, self.names = config, list(config.sources)
        if config.rates == "weights":
            self._start = dict(config.weights)
        elif config.rates == "equal":
            self._start = dict.fromkeys(self.names, 1.0)
        else:
            for name, size in sizes.items():
                if size is None:
                    raise ConfigError(
                        f"data.mixture: source '{name}' is a stream: give its size, or rates equal or weights"
                    )
            self._start = {
                name: proportional(size or 0, config.temperature, config.cap) for name, size in sizes.items()
            }
        self._constant = None if config.schedule else self._at(0)

    def _at(self, step: int) -> np.ndarray:
        changes = self.config.schedule
        now = {
            name: changes[name].at(step, weight) if name in changes else weight for name, weight in self._start.items()
        }
        values = np.array(list(self.config.flat(now).values()))
        if not values.sum():
            raise ConfigError(f"data.mixture: at step {step} all weights are 0")
        return values / values.sum()

    def __call__(self, step: int) -> np.ndarray:
        """``[sources]``, of sum 1."""
        return self._at(step) if self._constant is None else self._constant


def batch_source(rates: Callable[[int], np.ndarray], seed: int) -> Callable[[int], int]:
    """Which source a homogeneous batch is from: a function of its step alone.

    Steps walk round a circle by the golden section, whose arcs belong to the sources: any run of steps holds each
    source as often as its rate says, up to a few batches (Kronecker sequence).
    """
    start = float(share(np.array([0]), (seed, HOMOGENEOUS_STREAM))[0])

    def choose(step: int) -> int:
        bounds = np.cumsum(rates(step))
        place = (start + step * GOLDEN) % 1.0 * bounds[-1]
        return min(int(np.searchsorted(bounds, place, side="right")), len(bounds) - 1)

    return choose
