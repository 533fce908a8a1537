"""Measuring beside peers: separate processes, one thread, alternated rounds of CPU-seconds, ratios with an interval.

A contestant is a command that repeats one step and speaks a small protocol: it warms up, says ``ready``, then for every
number of steps it is told it answers with the CPU-seconds (all its threads) they took. Nothing else of this program
runs meanwhile.
"""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS = 9
RESAMPLES = 2000


class Stopwatch:
    """The contestant's side: call it before every step."""

    def __init__(self, warm_up: int) -> None:
        self.left, self.started = warm_up, time.process_time()
        self.timing = False
        # Whatever a model prints goes to standard error; standard output is for the protocol.
        self.out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def __call__(self) -> None:
        if self.left == 0:
            print(f"{time.process_time() - self.started:.6f}" if self.timing else "ready", file=self.out, flush=True)
            line = sys.stdin.readline()
            if not line:
                raise SystemExit(0)  # also out of a training that would go on
            self.left, self.timing, self.started = int(line), True, time.process_time()
        self.left -= 1


def repeat(step: Callable[[], Any], warm_up: int = 2) -> None:
    """Be a contestant that repeats ``step`` until it is no longer asked to."""
    stopwatch = Stopwatch(warm_up)
    while True:
        stopwatch()
        step()


class Contestant:
    """A process that was started and is waiting for its turn."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        threads = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        environment = {**os.environ, **threads, "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not os.environ.get("BENCHMARK_VERBOSE") else None,
            env=environment,
            text=True,
        )
        self.missing: str | None = None
        answer = self._read()
        if answer.startswith("missing "):
            self.missing = answer.removeprefix("missing ")
            self.process.wait()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        if not line:
            errors = self.process.communicate()[1] or ""
            raise RuntimeError(f"{self.name} ended with exit code {self.process.returncode}\n{errors[-3000:]}")
        return line

    def run(self, steps: int) -> float:
        """CPU-seconds of one step, averaged over ``steps``."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return float(self._read()) / steps

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.communicate()  # an end of input ends it


def missing(reason: str) -> None:
    """Be a contestant that cannot take part."""
    print(f"missing {reason}", flush=True)
    raise SystemExit(0)


def alternate(commands: dict[str, Sequence[str]], rounds: int = ROUNDS, steps: int = 1) -> dict[str, list[float]]:
    """CPU-seconds a step of every contestant in every round (A B C A B C ...); those that are missing are left out."""
    contestants = []
    try:
        for name, command in commands.items():
            contestant = Contestant(name, command)
            contestants.append(contestant)
            if contestant.missing is not None:
                print(f"  {name} left out: {contestant.missing}", file=sys.stderr)
        present = [contestant for contestant in contestants if contestant.missing is None]
        seconds: dict[str, list[float]] = {contestant.name: [] for contestant in present}
        for number in range(rounds):
            for contestant in present:
                seconds[contestant.name].append(contestant.run(steps))
            shown = "  ".join(f"{name} {found[-1]:.4g}" for name, found in seconds.items())
            print(f"  round {number + 1}/{rounds}  {shown}", file=sys.stderr, flush=True)
        return seconds
    finally:
        for contestant in contestants:
            contestant.stop()


def interval(ratios: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Median of ``ratios`` and its 95 % bootstrap interval (Efron 1979, percentiles)."""
    draw = random.Random(seed)
    medians = sorted(median(draw.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES))
    return median(ratios), medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES) - 1]


@dataclass
class Row:
    """One measured ratio beside what was wanted. ``ratio`` above 1: we are that many times faster.

    With ``smaller`` it is no ratio but a size in ``unit``, and less is better.
    """

    row: str
    peer: str
    ratio: float
    low: float
    high: float
    floor: float | None = None
    aim: float | None = None
    unit: str = "x"
    note: str = ""
    smaller: bool = False

    def plain(self) -> dict[str, Any]:
        """For the JSON file."""
        return {name: value for name, value in asdict(self).items() if name != "smaller"}

    @property
    def verdict(self) -> str:
        """Whether the whole interval is above the floor."""
        if self.floor is None:
            return ""
        if self.smaller:
            return "passes" if self.high <= self.floor else "above" if self.low > self.floor else "open"
        return "below" if self.high < self.floor else "passes" if self.low >= self.floor else "open"


def compare(seconds: dict[str, list[float]], ours: str, peer: str, row: str, shown: str, **wanted: Any) -> list[Row]:
    """``[Row]`` of peer over ours, round by round; empty when one of them took no part."""
    if ours not in seconds or peer not in seconds:
        return []
    ratios = [theirs / mine for mine, theirs in zip(seconds[ours], seconds[peer], strict=True)]
    note = f"{median(seconds[ours]):.4g} and {median(seconds[peer]):.4g} CPU-s a step"
    wanted["note"] = "; ".join(part for part in (wanted.get("note"), note) if part)
    return [Row(row, shown, *interval(ratios), **wanted)]


def machine() -> str:
    """What it was measured on."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{model}, torch {torch.__version__}, one thread{load}"


def report(rows: list[Row], file: Path | None) -> None:
    """Print the table; write it as JSON where asked."""
    print(machine())
    width = max((len(row.row) for row in rows), default=0)
    peers = max((len(row.peer) for row in rows), default=0)
    for row in rows:
        wanted = "" if row.floor is None else f"floor {row.floor:<5g} aim {row.aim:<5g} {row.verdict:<7}"
        values = f"{row.ratio:8.3f} {row.unit:<3} [{row.low:.3f}, {row.high:.3f}]"
        print(f"{row.row:<{width}}  {row.peer:<{peers}} {values:<30} {wanted:<30} {row.note}".rstrip())
    if file is not None:
        file.write_text(json.dumps([row.plain() for row in rows], indent=2) + "\n")
