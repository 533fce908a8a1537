"""An array script for SLURM: every task is a worker, and one that is preempted is queued again."""

from __future__ import annotations

import re
import shlex
import sys

from lightning_nlp.errors import ConfigError
from lightning_nlp.sweeps.directory import Opened
from lightning_nlp.sweeps.grammar import Sweep


def refuse_one_machine(sweep: Sweep) -> None:
    """Raise for a sweep whose storage is a file.

    Raises:
        ConfigError: names the key.
    """
    if sweep.storage is None or sweep.storage.startswith("sqlite"):
        raise ConfigError("storage: many machines need postgresql://..., SQLite is for one")


def script(opened: Opened, workers: int, time: str, partition: str | None) -> str:
    """The script; nothing is submitted.

    Args:
        opened: the sweep, on a file system that all nodes see.
        workers: tasks of the array.
        time: limit of a task as SLURM writes it.
        partition: of the cluster, or None for its default.

    Raises:
        ConfigError: the sweep's storage is not for several machines; a time or partition of unusual letters.
    """
    refuse_one_machine(opened.sweep)
    for name, value in (("--time", time), ("--partition", partition or "")):
        if re.search(r"[^\w:.,-]", value):
            raise ConfigError(f"{name} '{value}' is not allowed: letters, digits, ':', '.', ',', '-' and '_'")
    launcher = opened.sweep.launcher
    lines = [
        f"#SBATCH --job-name={opened.sweep.name}",
        f"#SBATCH --array=0-{workers - 1}",
        "#SBATCH --ntasks=1",
        f"#SBATCH --cpus-per-task={(launcher.cores or 1) * launcher.parallel}",
        f"#SBATCH --time={time}",
        "#SBATCH --requeue",
        f"#SBATCH --signal=B:TERM@{int(launcher.grace) + 60}",
        f"#SBATCH --output={opened.directory.path.absolute()}/slurm-%A-%a.log",
    ]
    if partition:
        lines.append(f"#SBATCH --partition={partition}")
    if launcher.gpus_per_trial:
        lines.append(f"#SBATCH --gpus-per-task={launcher.gpus_per_trial * launcher.parallel}")
    worker = shlex.join(
        [sys.executable, "-m", "lightning_nlp", "sweep", "worker", str(opened.directory.path.absolute())]
    )
    return "\n".join(
        [
            "#!/bin/bash",
            *lines,
            f"cd {shlex.quote(str(opened.cwd))}",
            "# `exec` would hide the exit code; in the background the shell can pass on the signal.",
            f"{worker} &",
            "worker=$!",
            "trap 'kill -TERM $worker' TERM",
            "wait $worker",
            "code=$?",
            "[ $code -gt 128 ] && kill -0 $worker 2>/dev/null && { wait $worker; code=$?; }",
            "# Stopped by the time limit or preempted: its trials have saved, and go on in the next start.",
            '[ $code -eq 143 ] && scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"',
            "exit $code",
            "",
        ]
    )
