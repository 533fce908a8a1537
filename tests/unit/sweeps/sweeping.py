"""Sweeps over the toy trial, run as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from lightning_nlp.__main__ import main
from lightning_nlp.sweeps import directory, running
from lightning_nlp.sweeps.results import Results, collect

TOY = [sys.executable, "-I", "-S", str(Path(__file__).with_name("toy_trial.py"))]
GRID: dict[str, Any] = {
    "method": "grid",
    "metric": {"name": "val/loss"},
    "program": TOY,
    "parameters": {"lr": {"values": [1e-3, 1e-2]}, "width": {"values": [32, 64]}},
    "launcher": {"parallel": 2, "grace": "10s", "heartbeat": "1s"},
}


def write(folder: Path, name: str = "toy", **changes: Any) -> Path:
    """A sweep file: GRID with other entries (None: without)."""
    content = {key: value for key, value in {**GRID, **changes}.items() if value is not None}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def twisted(folder: Path, *lines: str) -> list[str]:
    """A program that is the toy trial, after lines of Python that may look at its flags and change them."""
    runs = f"runpy.run_path({TOY[-1]!r}, run_name='__main__')"
    toy = folder / "twisted.py"
    toy.write_text("\n".join(["import os, runpy, signal, sys, time", "flags = ' '.join(sys.argv)", *lines, runs]))
    return [sys.executable, str(toy)]


def sweep(*args: object) -> int:
    """`lightning-nlp sweep ...` in this process."""
    return main(["sweep", *map(str, args)])


def run(folder: Path, name: str = "toy", code: int = 0, **changes: Any) -> Results:
    """Run one to its end and read it."""
    root = folder / "sweeps"
    found = sweep("run", write(folder, name, **changes), "--root", root)
    assert found == code, (found, code)
    return results(root / name)


def results(path: Path) -> Results:
    """What is known of a sweep in a directory."""
    opened = directory.find(path, path.parent)
    return collect(opened, running.open_study(opened), importances=True)


def outcome(found: Results) -> dict[str, tuple[Any, ...]]:
    """What must not depend on kills: settings, state and value of every trial, by its digest."""
    return {
        each.trial: (each.number, json.dumps(each.settings), each.state, each.value, each.step) for each in found.trials
    }


def starts(path: Path) -> dict[str, int]:
    """How often each trial was started."""
    return {log.parent.name: len(log.read_text().splitlines()) for log in path.glob("trials/*/starts.log")}


def process(*args: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`lightning-nlp sweep ...` in a process of its own."""
    command = [sys.executable, "-m", "lightning_nlp", "sweep", *map(str, args)]
    return subprocess.Popen(
        command,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def until(condition: Any, seconds: float = 60) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")
