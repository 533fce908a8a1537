"""What `fit` measures of itself on request, and says of itself at its end."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback

from lightning_nlp.callbacks.profile import ProfileSteps, log_of
from lightning_nlp.errors import ConfigError


def add_profile(parser: Any) -> None:
    """``--profile``."""
    parser.add_argument("--profile", type=steps, help="record so many steps, after some of warm-up, as a trace")


def steps(value: str) -> int:
    """A number of steps to record.

    Raises:
        ConfigError: it is none.
    """
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"--profile records a number of steps, at least 1, not '{value}'")
    return number


def tracing(settings: Any) -> list[Callback]:
    """What the settings of `fit` ask for."""
    return [] if settings.get("profile") is None else [ProfileSteps(settings["profile"])]


def ending(trainer: Any) -> str:
    """What goes behind the last line of a run."""
    return "".join(f"\n{line}" for line in log_of(trainer).summary())
