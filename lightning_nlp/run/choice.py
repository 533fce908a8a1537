"""Which weights of a run a command uses: one grammar for every verb.

``best``, ``last``, a step number or a file; ``average:last:N``, ``average:best:N`` or ``average:STEP,STEP,...`` for the
mean of several checkpoints. Where a run keeps a moving average (:mod:`lightning_nlp.callbacks.ema`), ``@ema`` or
``@raw`` behind any of them says which of the two sets of weights is meant; without it, the one that was validated.

A choice of more than a plain file travels as a *reference*, which :func:`lightning_nlp.run.weights.read` understands:
``checkpoints/step-40.ckpt+step-60.ckpt@ema``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.run import manifest
from lightning_nlp.run.files import digests
from lightning_nlp.run.manifest import Checkpoint

Weights = Literal["auto", "ema", "raw"]
Report = Callable[[str], None]
FORMS = "best, last, a step, a file, average:last:N, average:best:N or average:STEP,STEP,..."


@dataclass(frozen=True)
class Choice:
    """Checkpoints of one run, oldest first, and which of their weights are meant."""

    checkpoints: tuple[Checkpoint, ...]
    weights: Weights
    """``auto``: as the file has them, for a file without a manifest."""
    averaged: bool

    @property
    def newest(self) -> Checkpoint:
        return self.checkpoints[-1]

    @property
    def steps(self) -> list[int]:
        return [checkpoint.step for checkpoint in self.checkpoints]

    @property
    def reference(self) -> str:
        """What :func:`lightning_nlp.run.weights.read` loads these weights from."""
        names = "+".join(checkpoint.path.name for checkpoint in self.checkpoints)
        return str(self.newest.path.with_name(f"{names}@{self.weights}"))

    def to_resume(self, asked: str) -> str:
        """The one file that training goes on from.

        Raises:
            ConfigError: an average, or weights that no optimizer has seen.
        """
        if self.averaged or asked.endswith("@ema"):
            raise ConfigError(f"--ckpt_path {asked}: training goes on from one checkpoint as it was saved")
        return str(self.newest.path)

    @property
    def fingerprint(self) -> str:
        """Of the content of the files and of which weights are meant."""
        known = (item.manifest.get("files") or digests(item.path) for item in self.checkpoints)
        content = (file["sha256"] for item in known for file in item.values())
        return hashlib.sha256("|".join([self.weights, *content]).encode()).hexdigest()[:16]

    @property
    def signature(self) -> str:
        """What stands beside every score that these weights got; empty for one checkpoint as it was trained."""
        kind = "ema" if self.weights == "ema" else ""
        if self.averaged:
            kind = f"average of {len(self.steps)}{' ema' * bool(kind)} ({', '.join(map(str, self.steps))})"
        return f"weights:{kind}" if kind else ""

    def __str__(self) -> str:
        of = "moving averages" if self.weights == "ema" else "checkpoints"
        if self.averaged:
            return f"average of {len(self.steps)} {of}: steps {', '.join(map(str, self.steps))}"
        return f"step {self.newest.step}" + (", moving average" if self.weights == "ema" else "")


def choose(
    directory: Path,
    asked: str,
    report: Report,
    *,
    monitor: tuple[str, str] | None = None,
    set_aside: bool = True,
) -> Choice | None:
    """The checkpoints that ``asked`` names; None when there are none at all.

    Args:
        directory: where the run keeps its checkpoints.
        asked: see the head of this file.
        report: is told about damaged checkpoints, which are passed over.
        monitor: name and mode (``min`` or ``max``) of what is best; by default what the run itself went by.
        set_aside: rename damaged checkpoints.

    Raises:
        ConfigError: no such form, step or file; or fewer checkpoints than are to be averaged.
        CheckpointError: damaged, and there is no other that is meant.
    """
    name, weights = parsed(asked)
    if name == "last":
        newest = manifest.newest_valid(directory, report, set_aside=set_aside)
        return None if newest is None else chosen([newest], weights, asked)
    if name == "best":
        found = manifest.best(directory, *(monitor or monitor_of(directory)), report, set_aside=set_aside)
        return None if found is None else chosen([found], weights, asked)
    if name.isdigit():
        return chosen([of_step(directory, name)], weights, asked)
    if name.startswith("average:"):
        several = members(directory, name, monitor or monitor_of(directory), report, set_aside)
        return chosen(several, weights, asked, averaged=True)
    path = Path(name)
    if not path.exists():
        hint = nearest(name, ("best", "last", "average:last:5", "average:best:5")) if "/" not in name else ""
        raise ConfigError(f"--ckpt_path '{asked}' does not exist{hint} (give {FORMS})")
    return chosen([of_file(path)], weights, asked)


def parsed(asked: str) -> tuple[str, Weights]:
    """The name of the checkpoint, and which of its weights are meant."""
    name, at, weights = asked.rpartition("@")
    if not at or Path(asked).exists():
        return asked, "auto"
    if weights not in ("ema", "raw"):
        raise ConfigError(f"'{asked}': after @ stands ema or raw, not '{weights}'{nearest(weights, ('ema', 'raw'))}")
    return name, cast(Weights, weights)


def chosen(checkpoints: Iterable[Checkpoint], weights: Weights, asked: str, averaged: bool = False) -> Choice:
    """The choice, with ``auto`` settled by what the manifests say.

    Raises:
        ConfigError: moving averages are asked for, or some have them, and others have none.
    """
    found = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
    known = [bool(item.manifest.get("ema")) for item in found if "files" in item.manifest]
    if weights != "raw" and known and not all(known) and (any(known) or weights == "ema"):
        lacking = next(item.step for item in found if not item.manifest.get("ema"))
        raise ConfigError(f"'{asked}': the checkpoint of step {lacking} has no moving average: give @raw")
    if weights == "auto" and known:
        weights = "ema" if all(known) else "raw"
    return Choice(tuple(found), weights, averaged)


def members(directory: Path, name: str, monitor: tuple[str, str], report: Report, set_aside: bool) -> list[Checkpoint]:
    """The checkpoints that ``average:...`` means, damaged ones passed over."""
    rest = name.removeprefix("average:")
    if re.fullmatch(r"\d+(,\d+)*", rest):
        return [of_step(directory, step) for step in dict.fromkeys(rest.split(","))]
    match = re.fullmatch(r"(last|best):([1-9]\d*)", rest)
    if match is None:
        raise ConfigError(
            f"'{name}' is no choice of checkpoints: give average:last:N, average:best:N or average:STEP,..."
        )
    which, count = match[1], int(match[2])
    known = manifest.published(directory)
    metric, mode = monitor
    if which == "best":
        known = manifest.by_score(known, metric, mode)[::-1]
    found: list[Checkpoint] = []
    while known and len(found) < count:
        checkpoint = known.pop()
        if manifest.usable(checkpoint, report, set_aside=set_aside):
            found.append(checkpoint)
    if len(found) < count:
        steps = ", ".join(str(step) for step in sorted(item.step for item in found)) or "none"
        setting = f"trainer.keep_last {count}" if which == "last" else f"trainer.keep_best {count}"
        scored = f" with {metric}" if which == "best" else ""
        raise ConfigError(
            f"{name} needs {count} checkpoints{scored}, {directory.parent} has {len(found)} (steps: {steps}): "
            f"train with {setting}"
        )
    return found


def of_step(directory: Path, step: str) -> Checkpoint:
    """The checkpoint of a step, verified."""
    known = {str(item.step): item for item in manifest.published(directory)}
    if step not in known:
        steps = ", ".join(known) or "none"
        raise ConfigError(f"run '{directory.parent}' has no checkpoint of step {step} (it has {steps})")
    manifest.check(known[step].path)
    return known[step]


def of_file(path: Path) -> Checkpoint:
    """A checkpoint named by its file, verified where it has a manifest; one without is taken as it is."""
    manifest.check(path)
    for checkpoint in manifest.published(path.parent):
        if checkpoint.path.name == path.name:
            return checkpoint
    match = re.fullmatch(r"step-(\d+)", path.stem)
    return Checkpoint(path, {"step": int(match[1]) if match else 0})


def monitor_of(directory: Path) -> tuple[str, str]:
    """Name and mode of the metric that the newest checkpoint says is decisive."""
    known = manifest.published(directory)
    monitor = known[-1].manifest.get("monitor") if known else None
    return (monitor["name"], monitor["mode"]) if monitor else ("val/loss", "min")
