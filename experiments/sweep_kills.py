"""Kill a sweep, its trials, or both, again and again; its ledger must end as that of the same sweep left alone.

    python -m experiments.sweep_kills experiments/lr_width.yaml --clean runs/sweeps --root runs/killed --kills 5

The clean sweep is run first, unless it is there already. Kills come at random moments between two lines of metrics.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from lightning_nlp.sweeps.grammar import read_sweep
from lightning_nlp.sweeps.presence import processes_of

COMPARED = ("trial", "number", "settings", "state", "value", "step")
KINDS = ("both", "sweep", "trials")


def sweep(*args: object) -> subprocess.Popen[str]:
    """A command of sweeps, in a process of its own."""
    command = [sys.executable, "-m", "lightning_nlp", "sweep", *map(str, args)]
    return subprocess.Popen(command, start_new_session=True, text=True, stdout=subprocess.PIPE)


def finish(*args: object) -> str:
    """What a command printed, once it has ended well."""
    process = sweep(*args)
    out, _ = process.communicate()
    if process.returncode != 0:
        sys.exit(f"exit code {process.returncode}: sweep {' '.join(map(str, args))}")
    return out


def ledger(directory: Path) -> list[dict[str, Any]]:
    """What must not depend on kills, of every trial."""
    content = json.loads(finish("status", directory, "--json"))
    return [{name: trial[name] for name in COMPARED} for each in content["configurations"] for trial in each["trials"]]


def lines(directory: Path) -> int:
    """Lines of metrics so far."""
    return sum(file.read_bytes().count(b"\n") for file in directory.glob("trials/*/metrics.jsonl"))


def kill(process: subprocess.Popen[str], directory: Path, kind: str) -> None:
    """SIGKILL for the sweep, for what its trials run, or for both."""
    if kind != "sweep":
        for pid in [pid for trial in directory.glob("trials/*") for pid in processes_of(trial)]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    if kind != "trials":
        process.kill()
        process.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--clean", type=Path, default=Path("runs/sweeps"), help="root of the sweep left alone")
    parser.add_argument("--root", type=Path, required=True, help="root of the one that is killed")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    name, draw = read_sweep(options.sweep).name, random.Random(options.seed)
    clean, killed = options.clean / name, options.root / name
    finish("resume" if (clean / "trials").exists() else "run", options.sweep, "--root", options.clean)
    most = lines(clean)
    kills = 0
    for number in range(options.kills):
        process = sweep("resume" if (killed / "trials").exists() else "run", options.sweep, "--root", options.root)
        wanted = lines(killed) + max(most // (options.kills + 1), 1)
        while process.poll() is None and lines(killed) < wanted:
            time.sleep(0.05)
        time.sleep(draw.random())
        if process.poll() is not None:
            break
        kind = KINDS[number % len(KINDS)]
        kill(process, killed, kind)
        kills += 1
        print(f"kill {kills}: {kind}, after {lines(killed)} of {most} lines", flush=True)
        if kind == "trials":  # the sweep lives, and starts them again; end it for the next kill
            time.sleep(draw.random() * 5)
            process.send_signal(signal.SIGTERM)
            process.wait()
    finish("resume", options.sweep, "--root", options.root)
    expected, found = ledger(clean), ledger(killed)
    different = [(one, other) for one, other in zip(expected, found, strict=False) if one != other]
    if different or len(expected) != len(found):
        print(f"{len(expected)} and {len(found)} trials; the first that differ: {different[:1]}")
        return 1
    attempts = json.loads(finish("status", killed, "--json"))["configurations"]
    started = sum(len(trial["attempts"]) for each in attempts for trial in each["trials"])
    print(f"{kills} kills: {len(found)} trials equal in settings, state, step and value; started {started} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
