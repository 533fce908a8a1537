"""Checkpoints on disk: published atomically, valid only with their manifest, verified before use.

``step-N.ckpt`` (a file, or a directory when sharded) is data; ``step-N.json`` beside it is its manifest, written last.
A checkpoint without a manifest was never finished. Nothing is overwritten; ``last`` and ``best`` are looked up here.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_nlp.errors import CheckpointError
from lightning_nlp.run.files import digests, fsync_directory, fsync_tree, write_json

MANIFEST = re.compile(r"step-(\d+)\.json")
PARTIAL = ".partial"
DAMAGED = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint and what its manifest says."""

    path: Path
    manifest: dict[str, Any]

    @property
    def step(self) -> int:
        """Optimizer steps done when it was saved."""
        return int(self.manifest["step"])

    def score(self, monitor: str) -> float | None:
        """Of the validation at this step; None if there was none, or it is no number."""
        found = self.manifest.get("metrics", {}).get(monitor)
        return found if found is not None and math.isfinite(found) else None

    @property
    def manifest_path(self) -> Path:
        return self.path.with_suffix(".json")

    def damage(self) -> str | None:
        """Why this checkpoint must not be used, or None. Reads every byte."""
        if not self.path.exists():
            return f"{self.path.name} is missing"
        found = digests(self.path)
        for name, expected in self.manifest["files"].items():
            label = self.path.name if name == "." else f"{self.path.name}/{name}"
            if name not in found:
                return f"{label} is missing"
            if found[name]["bytes"] != expected["bytes"]:
                return f"{label} has {found[name]['bytes']} bytes instead of {expected['bytes']}"
            if found[name]["sha256"] != expected["sha256"]:
                return f"{label} does not match its checksum"
        return None


def checkpoint_path(directory: Path, step: int) -> Path:
    return directory / f"step-{step}.ckpt"


def partial_path(final: Path) -> Path:
    """The name a checkpoint has while it is written: same directory, so that the rename is atomic."""
    return final.with_name(f".{final.name}{PARTIAL}")


def publish(partial: Path, final: Path, manifest: dict[str, Any]) -> Checkpoint:
    """Flush ``partial``, rename it to ``final`` and write its manifest, in an order that no kill can spoil."""
    fsync_tree(partial)
    manifest = {**manifest, "files": digests(partial)}
    remove_path(final)
    os.replace(partial, final)
    fsync_directory(final.parent)
    checkpoint = Checkpoint(final, manifest)
    write_json(checkpoint.manifest_path, manifest)
    fsync_directory(final.parent)
    return checkpoint


def published(directory: Path) -> list[Checkpoint]:
    """All checkpoints with a readable manifest, oldest first. Does not verify their data."""
    found = []
    for file in directory.glob("step-*.json") if directory.is_dir() else []:
        if MANIFEST.fullmatch(file.name):
            try:
                manifest = json.loads(file.read_text())
                if not isinstance(manifest["files"], dict) or not isinstance(manifest["step"], int):
                    raise TypeError
            except (ValueError, KeyError, TypeError):
                # An unreadable manifest is damage too: it must be seen, not taken for a checkpoint never finished.
                step = int(MANIFEST.fullmatch(file.name).group(1))  # type: ignore[union-attr]
                manifest = {"step": step, "files": {"manifest": {"bytes": -1, "sha256": ""}}}
            found.append(Checkpoint(file.with_suffix(".ckpt"), manifest))
    return sorted(found, key=lambda checkpoint: checkpoint.step)


def newest_valid(directory: Path, report: Callable[[str], None], *, set_aside: bool = True) -> Checkpoint | None:
    """The newest checkpoint whose every byte is as written; damaged ones are named and set aside.

    Returns None when no checkpoint was ever published.

    Raises:
        CheckpointError: some exist and none is valid: starting over silently would lose the run.
    """
    checkpoints = published(directory)
    for checkpoint in reversed(checkpoints):
        if usable(checkpoint, report, set_aside=set_aside):
            return checkpoint
    if checkpoints or any(directory.glob(f"*{DAMAGED}")):
        raise CheckpointError(f"every checkpoint in {directory} is damaged; refusing to start over")
    return None


def usable(checkpoint: Checkpoint, report: Callable[[str], None], *, set_aside: bool = True) -> bool:
    """Whether every byte is as written; a damaged checkpoint is named and set aside."""
    damage = checkpoint.damage()
    if damage is not None:
        report(f"checkpoint at step {checkpoint.step} is damaged ({damage}); set aside as *{DAMAGED}")
        if set_aside:
            quarantine(checkpoint)
    return damage is None


def by_score(checkpoints: list[Checkpoint], monitor: str, mode: str) -> list[Checkpoint]:
    """Those with a score, the best first."""
    scores = [(score, checkpoint) for checkpoint in checkpoints if (score := checkpoint.score(monitor)) is not None]
    return [checkpoint for _, checkpoint in sorted(scores, key=lambda pair: pair[0], reverse=mode == "max")]


def best(
    directory: Path, monitor: str, mode: str, report: Callable[[str], None], *, set_aside: bool = True
) -> Checkpoint | None:
    """The valid checkpoint with the best score of ``monitor`` (``mode`` min or max), else the newest valid one."""
    for checkpoint in by_score(published(directory), monitor, mode):
        if usable(checkpoint, report, set_aside=set_aside):
            return checkpoint
    return newest_valid(directory, report, set_aside=set_aside)


def check(path: Path) -> None:
    """Verify a checkpoint that was asked for by name, where it has a manifest.

    Raises:
        CheckpointError: damaged; there is no other to fall back on, since this one was wanted.
    """
    for checkpoint in published(path.parent):
        if checkpoint.path == path and (damage := checkpoint.damage()) is not None:
            raise CheckpointError(f"checkpoint at step {checkpoint.step} is damaged ({damage})")


def annotate(directory: Path, step: int, metrics: dict[str, float]) -> None:
    """Note validation scores beside a checkpoint that was saved before its validation."""
    for checkpoint in published(directory):
        if checkpoint.step == step and not checkpoint.manifest.get("metrics"):
            write_json(checkpoint.manifest_path, {**checkpoint.manifest, "metrics": metrics})


def quarantine(checkpoint: Checkpoint) -> None:
    """Rename a damaged checkpoint so that it is never tried again, but can be looked at."""
    for path in (checkpoint.manifest_path, checkpoint.path):
        if path.exists():
            remove_path(path.with_name(path.name + DAMAGED))
            os.replace(path, path.with_name(path.name + DAMAGED))


def remove(checkpoint: Checkpoint) -> None:
    """Delete a checkpoint, manifest first: a kill in between leaves data without a manifest, which nobody trusts."""
    checkpoint.manifest_path.unlink(missing_ok=True)
    remove_path(checkpoint.path)


def remove_path(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sweep_up(directory: Path) -> None:
    """Delete what a killed process left unfinished: partial files and data without a manifest."""
    if not directory.is_dir():
        return
    for path in directory.iterdir():
        unfinished = path.name.endswith(PARTIAL)
        orphan = path.suffix == ".ckpt" and path.name.startswith("step-") and not path.with_suffix(".json").exists()
        if unfinished or orphan:
            remove_path(path)
