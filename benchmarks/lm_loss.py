"""Extra memory and CPU-seconds of the language-model loss, forward and backward, beside full logits and PyTorch's own.

python -m benchmarks.lm_loss [--json FILE] [--rounds N]

Extra memory is how far a fresh process grows above what it holds when the loss is called (hidden states, weight and
labels), at its highest, gradients of hidden states and weight included: in float32, 79 MB of it that nobody can save.
"resident" is counted by the kernel, whose high-water mark is set back just before (Linux only); "allocated" is the sum
of PyTorch's tensors, which does not depend on the C library. Both after a small call, so that libraries are loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import ROUNDS, Row, alternate, compare, repeat, report

ROWS, VOCABULARY, WIDTH = 1024, 50257, 384
FORMS = ("ours", "full logits", "torch 256 rows", "torch auto")
DTYPES = ("float32", "bfloat16")
PROCESSES = 3
"""Memory is measured in so many."""


@dataclass
class AtMost(Row):
    """A row in which less is better, and whose ``ratio`` is the measured value itself."""

    @property
    def verdict(self) -> str:
        """Whether all measured values are under the floor."""
        if self.floor is None:
            return ""
        return "passes" if self.high <= self.floor else "above" if self.low > self.floor else "open"


def inputs(dtype: str) -> tuple[Any, Any, Any]:
    """Hidden states ``[N, D]``, weight ``[V, D]`` and labels ``[N]``, made without anything that is thrown away."""
    import torch

    generator = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    hidden = torch.empty(ROWS, WIDTH, dtype=kind).normal_(generator=generator).requires_grad_()
    weight = torch.empty(VOCABULARY, WIDTH, dtype=kind).normal_(std=0.02, generator=generator).requires_grad_()
    return hidden, weight, torch.randint(0, VOCABULARY, (ROWS,), generator=generator)


def loss_of(form: str) -> Callable[[Any, Any, Any], Any]:
    """The summed loss of ``(hidden, weight, labels)`` in one form."""
    import torch
    import torch.nn.functional as F

    from lightning_nlp.backbone.loss import linear_cross_entropy

    torch.set_num_threads(1)
    if form == "ours":
        return lambda hidden, weight, labels: linear_cross_entropy(hidden, weight, labels, chunked=True)[0]
    if form == "full logits":
        return lambda hidden, weight, labels: F.cross_entropy(F.linear(hidden, weight).float(), labels, reduction="sum")
    options = torch.nn.LinearCrossEntropyOptions()
    if form == "torch 256 rows":
        options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=256, chunking_method=None, acc_policy="accurate")
    return lambda hidden, weight, labels: F.linear_cross_entropy(
        hidden, weight, labels, reduction="sum", options=options
    )


def contestant(form: str, dtype: str) -> None:
    """Repeat loss and backward for the harness."""
    (hidden, weight, labels), loss = inputs(dtype), loss_of(form)

    def step() -> None:
        hidden.grad = weight.grad = None
        (loss(hidden, weight, labels) / ROWS).backward()

    repeat(step, warm_up=1)


def resident(name: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise SystemExit("memory is measured on Linux only")


def memory(form: str, dtype: str) -> dict[str, float]:
    """Extra megabytes of one loss and backward in this process, and how far its value is from float64."""
    import torch

    (hidden, weight, labels), loss = inputs(dtype), loss_of(form)
    small = [x.detach()[:64].clone().requires_grad_() for x in (hidden, weight)]
    loss(*small, labels[:64] % 64).backward()
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to what is resident
    before = resident("VmRSS")
    value = loss(hidden, weight, labels)
    (value / ROWS).backward()
    grown = resident("VmHWM") - before
    found = float(value.detach())
    hidden.grad = weight.grad = value = None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        (loss(hidden, weight, labels) / ROWS).backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        highest = max(highest, live)
    exact = 0.0
    with torch.no_grad():
        for some, their in zip(hidden.double().split(64), labels.split(64), strict=True):
            exact += float(torch.nn.functional.cross_entropy(some @ weight.double().T, their, reduction="sum"))
    return {"resident": grown / 1e6, "allocated": highest / 1e6, "error": abs(found / exact - 1)}


def measured(form: str, dtype: str) -> dict[str, list[float]]:
    """:func:`memory` in several fresh processes."""
    command = [sys.executable, "-m", "benchmarks.lm_loss", "--memory", form, dtype]
    runs = []
    for _ in range(PROCESSES):
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: [run[name] for run in runs] for name in runs[0]}


def seconds_of(dtype: str, forms: tuple[str, ...], rounds: int) -> dict[str, list[float]]:
    """CPU-seconds of loss and backward, round by round."""
    commands = {form: ("-m", "benchmarks.lm_loss", "--contestant", form, dtype) for form in forms}
    return alternate(commands, rounds)


def rows_of(dtype: str, rounds: int) -> list[Row]:
    """Memory, then time, of all forms in one dtype."""
    rows: list[Row] = []
    for form in FORMS:
        found = measured(form, dtype)
        wanted = {"floor": 130, "aim": 110} if form == "ours" else {}
        note = f"allocated {median(found['allocated']):.1f} MB; value off by {median(found['error']):.1g} of float64's"
        megabytes = found["resident"]
        rows.append(
            AtMost(
                f"extra memory of the loss, {dtype}", form, median(megabytes), min(megabytes), max(megabytes),
                unit="MB", note=note, **wanted,
            )
        )  # fmt: skip
    seconds = seconds_of(dtype, FORMS[:3], rounds)
    for peer in FORMS[1:3]:
        wanted = {"floor": 1.0, "aim": 1.0} if peer == "full logits" else {}
        rows += compare(seconds, "ours", peer, f"time of the loss, {dtype}", peer, **wanted)
    # It takes so long that a few rounds say enough.
    seconds = seconds_of(dtype, ("ours", "torch auto"), min(rounds, 3))
    return rows + compare(seconds, "ours", "torch auto", f"time of the loss, {dtype}", "torch auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--contestant", nargs=2, metavar=("FORM", "DTYPE"), help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, metavar=("FORM", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contestant(*options.contestant)
    elif options.memory:
        print(json.dumps(memory(*options.memory)))
    else:
        report([row for dtype in DTYPES for row in rows_of(dtype, options.rounds)], options.json)


if __name__ == "__main__":
    main()
