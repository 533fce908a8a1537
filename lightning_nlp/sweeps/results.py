"""What a sweep has come to: the study and the directories of trials, read together."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from lightning_nlp.sweeps import ledger, space
from lightning_nlp.sweeps.directory import Opened
from lightning_nlp.sweeps.ledger import Trial
from lightning_nlp.sweeps.metrics import read_curve
from lightning_nlp.sweeps.parameters import plain
from lightning_nlp.sweeps.records import trials_of
from lightning_nlp.sweeps.statistics import half_width
from lightning_nlp.sweeps.study import Cell, Study


@dataclass(frozen=True)
class Configuration:
    """One configuration and its trials, one for every replicate.

    ``value`` is the mean over replicates (of a failed configuration: over those that were done), ``interval`` half of
    its 95 % t-interval where there are several; ``curve`` the mean by step or tokens.
    """

    number: int
    cell: str
    settings: dict[str, Any]
    state: str
    value: float | None
    interval: float | None
    curve: dict[int, float]
    trials: tuple[Trial, ...]

    @property
    def compared(self) -> bool:
        """Whether it takes part in the choice of the best: all its replicates came to their end."""
        return self.state == "done" and self.value is not None


@dataclass(frozen=True)
class Results:
    """All configurations, in the order in which they were chosen."""

    opened: Opened
    configurations: tuple[Configuration, ...]
    importances: dict[str, float]

    @property
    def trials(self) -> list[Trial]:
        return [trial for each in self.configurations for trial in each.trials]

    def ranked(self) -> list[Configuration]:
        """Those that are done, the best first."""
        done = [each for each in self.configurations if each.compared]
        sign = 1 if self.opened.sweep.metric.minimize else -1
        return sorted(done, key=lambda each: (sign * (each.value or 0.0), each.number))

    def counts(self) -> Counter[str]:
        """Trials by state."""
        return Counter(trial.state for trial in self.trials)


def collect(opened: Opened, study: Study, *, importances: bool = False) -> Results:
    """Read everything there is; importances of parameters where asked for, since they take a second.

    Raises:
        ConfigError: a record is of another version.
        DataError: the storage cannot be reached.
    """
    with study.reachable():
        cells = study.cells()
        shares = study.importances() if importances else {}
    return Results(opened, tuple(configuration(opened, cell) for cell in cells), shares)


def configuration(opened: Opened, cell: Cell) -> Configuration:
    trials = tuple(trials_of(opened, cell))
    if cell.state == "waiting":  # what ran when its worker died does not run any more
        trials = tuple(replace(each, state="waiting") if each.state == "running" else each for each in trials)
    values = [trial.value for trial in trials if trial.state == "done" and trial.value is not None]
    value = cell.value
    if cell.state == "failed":
        value = statistics.fmean(values) if values else None
    interval = half_width(values) if cell.state == "done" else None
    curve = mean_curve(opened, trials) or cell.curve
    return Configuration(cell.number, cell.cell, cell.settings, cell.state, value, interval, curve, trials)


def mean_curve(opened: Opened, trials: tuple[Trial, ...]) -> dict[int, float]:
    """Mean over the trials at the steps that all of them have; of those whose directories are here."""
    metric, curves = opened.sweep.metric.name, []
    for trial in trials:
        points = read_curve(opened.directory.trial(trial.trial) / "metrics.jsonl", metric).points
        if trial.state == "pruned":
            points = {step: value for step, value in points.items() if step <= trial.step}
        curves.append(points)
    common = sorted(set(curves[0]).intersection(*curves[1:]))
    return {step: statistics.fmean(points[step] for points in curves) for step in common}


# As text ----------------------------------------------------------------------------------------------------------


def summary(results: Results) -> str:
    """One line: how many trials, and how they stand."""
    sweep, counts = results.opened.sweep, results.counts()
    states = ", ".join(f"{counts[state]} {state}" for state in ledger.STATES if counts[state])
    replicates = f" x {len(sweep.replicate.values)} replicates" if sweep.replicate is not None else ""
    count = len(results.configurations)
    return f"{count} configuration{'s' * (count != 1)}{replicates}: {states or 'nothing yet'}"


def value_text(each: Configuration) -> str:
    """``4.1234 ± 0.0056``, or a dash."""
    if each.value is None:
        return "-"
    return f"{each.value:.4f}" + (f" ± {each.interval:.4f}" if each.interval is not None else "")


def rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Column names and one row for every configuration: the best first, then those that are not done."""
    sweep = results.opened.sweep
    keys = space.varied(sweep)
    names = short_names(keys)
    several = sweep.replicate is not None
    columns = ["#", *(names[key] for key in keys), sweep.metric.name, *(["done"] if several else []), "state", "cpu"]
    ranked = results.ranked()
    rest = [each for each in results.configurations if each not in ranked]
    table = []
    for each in [*ranked, *rest]:
        done = sum(trial.state == "done" for trial in each.trials)
        table.append(
            [
                str(each.number),
                *(plain(each.settings[key]) if key in each.settings else "" for key in keys),
                value_text(each),
                *([f"{done}/{len(each.trials)}"] if several else []),
                each.state,
                duration(sum(trial.cpu_seconds for trial in each.trials)),
            ]
        )
    return columns, table


def short_names(keys: list[str]) -> dict[str, str]:
    """The last parts of dotted keys, as many as keep them apart."""
    names = {}
    for key in keys:
        parts = key.split(".")
        for count in range(1, len(parts) + 1):
            name = ".".join(parts[-count:])
            if sum(other == name or other.endswith(f".{name}") for other in keys) == 1:
                break
        names[key] = name
    return names


def aligned(columns: list[str], table: list[list[str]]) -> str:
    """A table as text."""
    widths = [max(len(row[place]) for row in [columns, *table]) for place in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [columns, *table]]
    return "\n".join(f"  {line.rstrip()}" for line in lines)


def duration(seconds: float) -> str:
    """``12 s``, ``3.4 min``, ``2.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def failures(results: Results) -> list[str]:
    """A line for every trial that failed; none is left out."""
    failed = [trial for trial in results.trials if trial.state == "failed"]
    return [f"trial {each.number} [{each.trial}] {each.kind}: {each.reason}" for each in failed]


def as_text(results: Results) -> str:
    """What `sweep status` prints."""
    lines = [f"sweep {results.opened.directory.path} ({results.opened.sweep.method}): {summary(results)}"]
    if results.configurations:
        lines.append(aligned(*rows(results)))
    lines += [f"  failed: {line}" for line in failures(results)]
    return "\n".join(lines)


def as_json(results: Results) -> dict[str, Any]:
    """The same for programs: what a ledger says, in an order that depends on nothing else."""
    return {
        "sweep": results.opened.sweep.name,
        "method": results.opened.sweep.method,
        "metric": results.opened.sweep.metric.name,
        "configurations": [
            {
                "number": each.number,
                "cell": each.cell,
                "settings": each.settings,
                "state": each.state,
                "value": each.value,
                "interval": each.interval,
                "trials": [trial.as_dict() for trial in each.trials],
            }
            for each in results.configurations
        ],
    }
