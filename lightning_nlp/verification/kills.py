"""Starting `fit` in processes of its own, and stopping it at random moments."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from lightning_nlp.verification.history import last_step


def command(*args: object) -> list[str]:
    """The command line of this package, for another process."""
    return [sys.executable, "-m", "lightning_nlp", *map(str, args)]


def stop(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal and wait for the end; a kill is for its whole group, so that no rank lives on."""
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    process.wait(120)


def stop_after(process: subprocess.Popen[str], run: Path, step: int, delay: float, number: int) -> bool:
    """Send a signal once ``step`` was logged, ``delay`` seconds later; False when the run ended first."""
    while process.poll() is None:
        if last_step(run) >= step:
            try:
                process.wait(delay)
                return False
            except subprocess.TimeoutExpired:
                stop(process, number)
                return True
        time.sleep(0.01)
    return False


def start(args: list[object], environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A process in a group of its own, silent but for its errors."""
    return subprocess.Popen(
        command(*args),
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def moment(draw: random.Random, run: Path, most: int) -> tuple[int, float]:
    """A step to wait for, and seconds after it: mostly within training, now and then while the process starts."""
    if draw.random() < 0.15:
        return 0, draw.random() * 3
    return last_step(run) + draw.randint(1, most), draw.random() * 0.1
