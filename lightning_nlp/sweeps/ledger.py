"""What is known of a trial (one run of `fit`): a JSON file in its directory, readable without a database."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_nlp.errors import ConfigError
from lightning_nlp.run.files import write_json

VERSION = 1
FILE = "trial.json"
STATES = ("waiting", "running", "done", "pruned", "failed")
ENDED = ("done", "pruned", "failed")


@dataclass
class Trial:
    """A record of the ledger.

    Attributes:
        trial: digest of ``settings`` and base files; the name of the directory.
        cell: digest of the settings without the replicate; trials of one cell are averaged.
        number: of the cell, in the order in which configurations were chosen.
        settings: dotted keys of the command line and their values.
        replicate: value of the replicate parameter, None where there is none.
        state: one of ``STATES``.
        value: the metric, when done or pruned.
        step, tokens: the last ones in ``metrics.jsonl``.
        code: exit code of the last attempt.
        kind: what ended it: done, pruned, configuration, crash, out_of_memory, diverged, no_metric, timeout,
            preempted, killed, host_oom, stalled.
        reason: one line for people.
        attempts: one entry for every start: worker, host, pid, started (Unix time), seconds, cpu_seconds, code, kind.
        gpus: devices it had.
        retried: how often it was put back by hand after it had failed.
    """

    trial: str
    cell: str
    number: int
    settings: dict[str, Any]
    replicate: Any = None
    state: str = "waiting"
    value: float | None = None
    step: int = 0
    tokens: int = 0
    code: int | None = None
    kind: str = ""
    reason: str = ""
    gpus: int = 0
    attempts: list[dict[str, Any]] = field(default_factory=list)
    retried: int = 0
    version: int = VERSION

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def seconds(self) -> float:
        """Wall-clock time of all attempts."""
        return sum(attempt.get("seconds") or 0.0 for attempt in self.attempts)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all attempts that somebody saw end."""
        return sum(attempt.get("cpu_seconds") or 0.0 for attempt in self.attempts)

    @property
    def progress(self) -> tuple[int, bool, int]:
        """Of two records of one trial, that with more of it is the later one."""
        return self.retried, self.ended, len(self.attempts)

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def from_dict(value: dict[str, Any], where: str) -> Trial:
    """A record from its JSON.

    Raises:
        ConfigError: it is of another version of the ledger, or no record.
    """
    version = value.get("version")
    if version != VERSION:
        raise ConfigError(f"'{where}' is a ledger of version {version}, this is lightning-nlp with version {VERSION}")
    try:
        return Trial(**value)
    except TypeError as error:
        raise ConfigError(f"'{where}' is no record of a trial: {error}") from error


def write(directory: Path, trial: Trial) -> None:
    """Write the record of one trial, atomically."""
    write_json(directory / FILE, trial.as_dict())


def read(directory: Path) -> Trial | None:
    """The record in a trial's directory, None where there is none yet.

    Raises:
        ConfigError: it cannot be read as one.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise ConfigError(f"'{path}' is no record of a trial: {error}") from error


def latest(directory: Path, stored: dict[str, Any] | None) -> Trial | None:
    """The record of a trial, None where there is none yet.

    Its directory may be another machine's, and the study may not have been told of an end before a kill.

    Args:
        directory: of the trial.
        stored: the record in the study.

    Raises:
        ConfigError: one of them cannot be read.
    """
    here = read(directory)
    there = None if stored is None else from_dict(stored, f"study, trial {directory.name}")
    if here is None or there is None:
        return here or there
    return there if there.progress > here.progress else here


def read_all(sweep: Path) -> list[Trial]:
    """Records of all trials that ever started in a sweep's directory, in the order of their configurations."""
    found = [read(path.parent) for path in sorted(sweep.glob(f"trials/*/{FILE}"))]
    return sorted((each for each in found if each is not None), key=lambda each: each.number)
