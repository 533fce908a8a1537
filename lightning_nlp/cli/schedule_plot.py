"""`lightning-nlp list schedules --plot`: learning rates over a run, in the terminal or as a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.optim.schedules import ScheduleConfig, factor

WARMUP = 0.05
"""Warm-up where none is asked for, so that it can be seen."""
WIDTH = 64
LEVELS = "▁▂▃▄▅▆▇█"


def schedules(asked: list[str] | None) -> dict[str, ScheduleConfig]:
    """``{what was asked: schedule}`` of ``["wsd,decay=0.1,form=linear", ...]``; by default every schedule.

    Raises:
        ConfigError: no such schedule or setting.
    """
    return {text: parsed(text) for text in asked or registry.SCHEDULES}


def parsed(text: str) -> ScheduleConfig:
    """A schedule written as ``name,key=value,...``."""
    name, *settings = text.split(",")
    known = [field.name for field in fields(ScheduleConfig) if field.name not in ("name", "ramp")]
    values: dict[str, Any] = {"warmup": WARMUP}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key not in known:
            raise ConfigError(
                f"--schedule {text}: there is no '{key}'{nearest(key, known)} (known: {', '.join(known)})"
            )
        if not equals or not value:
            raise ConfigError(f"--schedule {text}: write {key}=VALUE")
        values[key] = value if key == "form" else number(text, key, value)
    return ScheduleConfig(name, **values)


def number(text: str, key: str, value: str) -> int | float:
    """An integer where it is written as one.

    Raises:
        ConfigError: no number; names setting and value.
    """
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    raise ConfigError(f"--schedule {text}: {key} must be a number, not '{value}'")


def factors(config: ScheduleConfig, steps: int, count: int) -> list[float]:
    """The learning rate, as a share of the highest, at ``count`` steps spread evenly over the run's first and last."""
    last = max(count - 1, 1)
    return [factor(config, round(place * (steps - 1) / last), steps) for place in range(count)]


def sparkline(values: Iterable[float]) -> str:
    """A character a value from 0 to 1."""
    return "".join(LEVELS[min(round(value * (len(LEVELS) - 1)), len(LEVELS) - 1)] for value in values)


def text(found: dict[str, ScheduleConfig], steps: int) -> str:
    """A line a schedule: its curve, and its learning rate at the first step, half-way and at the last."""
    width = max(map(len, found))
    lines = [
        f"learning rate over {steps} step{'s' * (steps > 1)}, as a share of the highest (first, middle and last step)"
    ]
    for name, config in found.items():
        ends = "  ".join(f"{value:.3f}" for value in factors(config, steps, 3))
        lines.append(f"  {name:<{width}}  {sparkline(factors(config, steps, WIDTH))}  {ends}")
    return "\n".join(lines)


def picture(found: dict[str, ScheduleConfig], steps: int, path: Path) -> None:
    """Write all curves into one picture; its kind is that of the file's ending.

    Raises:
        ConfigError: matplotlib is not installed, knows no such ending, or the file cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "a picture needs matplotlib (pip install 'lightning_nlp[pictures]'); --plot without a file draws text"
        ) from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="optimizer step", ylabel="learning rate, share of the highest")
    count = min(steps, 2000)
    xs = [round(place * (steps - 1) / max(count - 1, 1)) for place in range(count)]
    for name, config in found.items():
        axes.plot(xs, factors(config, steps, count), label=name)
    axes.set_ylim(0, 1.05)
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    kinds = figure.canvas.get_supported_filetypes()
    if path.suffix.lstrip(".") not in kinds:
        raise ConfigError(f"--plot {path}: the name must end in one of {', '.join(sorted(kinds))}, such as .png")
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise ConfigError(f"--plot {path} cannot be written: {error.strerror}") from None
