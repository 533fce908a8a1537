"""A few real steps of a configuration, by `fit` itself in a process and a folder of their own: time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lightning_nlp.errors import ConfigError, DataError
from lightning_nlp.run import exit_codes

WARM_UP = 2
"""First steps, which no time is taken of."""
SILENT = {
    "trainer.max_tokens": "null",
    "trainer.max_epochs": "null",
    "trainer.validate_every": "0",
    "trainer.checkpoint_every": "0",
    "trainer.limit_val_batches": "0",
    "trainer.log_every_n_steps": "1",
    "trainer.patience": "null",
    "trainer.time_budget": "null",
}
"""What makes of a configuration a few steps of training alone."""


@dataclass(frozen=True)
class Trial:
    """What steps took."""

    seconds: float
    """Of the fastest step."""
    tokens: float
    """Of a step, over all ranks."""
    memory: int
    """Bytes of a rank at most: of its device, else of its process."""


def trial(args: list[str], steps: int, **flags: object) -> Trial | None:
    """Train for a few steps; None when memory did not suffice.

    Args:
        args: command line of `fit`; of a run, its configuration.
        steps: that are measured.
        flags: ``data__micro_batch_size=4`` and the like, after all others.

    Raises:
        ConfigError: fit refuses the configuration.
        DataError: fit fails; its last line.
    """
    fixed = {**SILENT, "trainer.max_steps": steps + WARM_UP, **{k.replace("__", "."): v for k, v in flags.items()}}
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        command = [sys.executable, "-m", "lightning_nlp", "fit", *configuration(args)]
        command += [part for name, value in fixed.items() for part in (f"--{name}", str(value))]
        command += ["--root", folder, "--name", "trial"]
        environment = {name: value for name, value in os.environ.items() if name != "LIGHTNING_NLP_RUN"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        metrics = Path(folder) / "trial" / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.is_file() else []
    if done.returncode == 0 and lines:
        return result(lines)
    if done.returncode in (-9, 137) or any(sign in done.stderr for sign in exit_codes.OUT_OF_MEMORY):
        return None
    said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    last = said[-1].removeprefix("lightning-nlp: error: ").removeprefix("lightning-nlp: ")
    if done.returncode == 2:
        raise ConfigError(last)
    raise DataError(f"the steps that plan tried ended with exit code {done.returncode}: {last}")


def result(lines: list[dict[str, float]]) -> Trial:
    """What ``metrics.jsonl`` of a run that logs every step says."""
    lines = [line for line in lines if "speed/step_seconds" in line]
    fastest = min(lines[WARM_UP:], key=lambda line: line["speed/step_seconds"])
    tokens = lines[-1]["tokens"] / len(lines)
    used = max(line.get("memory/device_peak_bytes", line["memory/resident_peak_bytes"]) for line in lines)
    return Trial(fastest["speed/step_seconds"], tokens, int(used))


def configuration(args: list[str]) -> list[str]:
    """``args`` without what names a run, which a trial has of its own; its configuration takes the run's place."""
    found, skip = [], False
    for number, arg in enumerate(args):
        name, _, value = arg.partition("=")
        if skip:
            skip = False
            continue
        if name not in ("--run", "--name", "--root", "--overwrite", "--profile"):
            found.append(arg)
            continue
        skip = "=" not in arg and name != "--overwrite"
        if name == "--run":
            run = Path(value or args[number + 1])
            found = ["-c", str(run / "config.fit.yaml"), *found]
    return found
