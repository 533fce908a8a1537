"""The kinds of mistakes a user can mend, and the hint that helps to mend them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """A wrong setting. The message is one line naming the key and what would be right; exit code 2."""


class DataError(RuntimeError):
    """Data that cannot be used as asked. The message is one line naming file and row where known; exit code 1."""


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, missing, or made for another model; exit code 1."""


class TrainingError(RuntimeError):
    """Training that cannot go on. The message is one line saying where it stopped and what may help; exit code 1."""

    code = 1


class StalledError(TrainingError):
    """Another process does not answer; exit code 86."""

    code = 86


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or an empty string when none is close."""
    match = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""
