"""The run directory: where everything of one run lives, and how it gets its name."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_nlp.errors import ConfigError
from lightning_nlp.run.exit_codes import STATES
from lightning_nlp.run.files import write_json

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class RunDirectory:
    """Paths inside ``runs/<name>/``. Creating the object touches nothing on disk."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def labels(self) -> Path:
        return self.path / "labels.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions"

    @property
    def reports(self) -> Path:
        return self.path / "reports"

    def config(self, verb: str) -> Path:
        """The complete, reloadable configuration of the last ``verb`` command."""
        return self.path / f"config.{verb}.yaml"

    def read_status(self) -> dict[str, Any]:
        """The content of ``status.json``, or an empty dict."""
        return json.loads(self.status.read_text()) if self.status.is_file() else {}

    def write_status(self, state: str, *, step: int | None = None, code: int | None = None, reason: str = "") -> None:
        """Record where the run stands; schedulers read this because launchers hide their workers' exit codes."""
        if step is None:
            step = self.read_status().get("step", 0)
        value = {"state": state, "exit_code": code, "step": step, "reason": reason, "pid": os.getpid()}
        write_json(self.status, {**value, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")})

    def finish(self, code: int, reason: str) -> None:
        """Record the end of the command with its exit code."""
        self.write_status(STATES.get(code, "failed"), code=code, reason=reason)


def check_name(name: str) -> str:
    """Return ``name`` when it is fit for a directory.

    Raises:
        ConfigError: other characters than letters, digits, ``. _ -``, or longer than 64.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"run name '{name}' is not allowed: use up to 64 letters, digits, '.', '_' or '-'")
    return name


def create(root: str | Path, name: str, *, overwrite: bool = False) -> RunDirectory:
    """Make ``root/name``.

    Raises:
        ConfigError: it exists (the message gives the line that resumes it), or the root cannot be written to.
    """
    path = Path(root) / check_name(name)
    if path.exists():
        if not overwrite and not came_to_nothing(path):
            raise ConfigError(f"run '{path}' exists: resume it with `--run {path}`, or add --overwrite to start anew")
        if not looks_like_run(path):
            raise ConfigError(f"'{path}' holds something that is no run: --overwrite will not delete it")
        shutil.rmtree(path)
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(f"cannot create run directory '{path}': {error.strerror}") from error
    return RunDirectory(path)


def came_to_nothing(path: Path) -> bool:
    """True for a run that ended in a mistake before its first step: the corrected command may use its name."""
    failed = RunDirectory(path).read_status()
    started = (path / "metrics.jsonl").exists() or (path / "checkpoints").exists()
    return failed.get("state") == "failed" and not failed.get("step") and not started


def looks_like_run(path: Path) -> bool:
    """True for an empty directory or one that a run has written to."""
    return not any(path.iterdir()) or (path / "status.json").exists() or any(path.glob("config.*.yaml"))
