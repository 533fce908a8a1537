"""Is it right on a GPU, and how fast: one command, every row written as soon as it is there.

python -m benchmarks.gpu [--part numerics|train|decode|all] [--minutes 9] [--output experiments/gpu]
python -m benchmarks.gpu --device cpu --smoke      # the same code on tiny shapes: does it run?

Numerics come first: every kernel beside float64. Then training steps and greedy decoding, and with the time that is
left other ways to do the same. Each is a process of its own with a limit: one that crashes, hangs or runs out of memory
is a row that says so, and what the time does not allow is a row too. Needs torch; transformers only as a peer.

Exit code: 1 where a kernel is wrong or a model could not be trained, 2 for a wrong command.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

MARK = "ROW "
"""Before a row on the standard output of a process that measures."""
PARTS = ("numerics", "train", "decode")


@dataclass(frozen=True)
class Job:
    """One process: rows of ``part``, made by ``benchmarks.<module>.run(spec, ...)``.

    Args:
        least: seconds below which it is not worth starting.
        most: seconds after which it is stopped.
    """

    part: str
    row: str
    module: str
    spec: dict[str, Any] = field(default_factory=dict)
    least: float = 30.0
    most: float = 120.0
    more: str = ""
    """What distinguishes it from other jobs of the row."""


SHAPES = {
    "124M": {"layers": 12, "width": 768, "heads": 12, "length": 1024, "micro_batches": [64, 32]},
    "350M": {"layers": 24, "width": 1024, "heads": 16, "length": 1024, "micro_batches": [64, 32, 16]},
    "1.3B": {"layers": 24, "width": 2048, "heads": 16, "length": 2048, "micro_batches": [16, 8, 4]},
}
"""GPT-2's shapes, and 1.3B as MPT has it; 50304 is GPT-2's vocabulary filled up to a multiple of 64."""
VOCABULARY = 50304


def training(row: str, least: float = 45.0, most: float = 110.0, **how: Any) -> Job:
    """A try at a row of the table."""
    spec = {"row": row, "vocabulary": VOCABULARY, **SHAPES[row], **how}
    return Job("train", row, "gpu_train", spec, least, most, " ".join(map(str, how.values())))


def full_jobs() -> list[Job]:
    """What is wanted most first: one number a row, then other ways in the order of what they promise."""
    from benchmarks.gpu_numerics import FULL

    decode = {"row": "124M", **SHAPES["124M"], "vocabulary": VOCABULARY, "batch": 64, "prompt": 32, "new": 128}
    return [
        Job("ceiling", "products and copies", "gpu_ceiling", {"size": 8192}, 20, 60),
        Job("numerics", "kernels", "gpu_numerics", {"groups": ["plain", "loss", "models"], "sizes": FULL}, 30, 150),
        *(training(row) for row in SHAPES),
        Job("decode", "124M", "gpu_decode", decode, 25, 90),
        Job("numerics", "FlexAttention", "gpu_numerics", {"groups": ["flex"], "sizes": FULL}, 30, 100),
        training("124M", compiled="all"),
        training("1.3B", compiled="model"),
        training("350M", compiled="all"),
        training("124M", documents=4),
        training("124M", numerics="autocast"),
        training("124M", compiled="none"),
    ]


def smoke_jobs() -> list[Job]:
    """The same code, tiny."""
    from benchmarks.gpu_numerics import SMOKE

    tiny = {"layers": 2, "width": 32, "heads": 2, "length": 32, "vocabulary": 97}
    train = {"row": "tiny", **tiny, "micro_batches": [2], "seconds": 0.05}
    ways: list[dict[str, Any]] = [
        {"compiled": "none"},
        {"compiled": "none", "documents": 3},
        {"compiled": "none", "numerics": "autocast"},
    ]
    decode = {"row": "tiny", **tiny, "batch": 2, "prompt": 4, "new": 6}
    return [
        Job("ceiling", "products and copies", "gpu_ceiling", {"size": 128}),
        Job("numerics", "kernels", "gpu_numerics", {"groups": ["plain", "flex", "loss", "models"], "sizes": SMOKE}),
        *(Job("train", "tiny", "gpu_train", {**train, **way}) for way in ways),
        Job("decode", "tiny", "gpu_decode", decode),
    ]


# Processes --------------------------------------------------------------------------------------------------------


def measure(job: Job, device: str, emit: Any) -> None:
    """Do it, here."""
    import importlib

    importlib.import_module(f"benchmarks.{job.module}").run(job.spec, device, emit)


def be_the_process(text: str, device: str) -> None:
    """The other end of :func:`in_a_process`."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no row
    measure(Job(**json.loads(text)), device, lambda row: print(MARK + json.dumps(row), file=out, flush=True))


def in_a_process(job: Job, device: str, seconds: float) -> Iterator[dict[str, Any]]:
    """Rows as they come; the last one says what went wrong, if something did."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", device, "--job", json.dumps(asdict(job))]
    failed = {"part": job.part, "row": job.row, "try": job.more}
    lines: queue.Queue[str | None] = queue.Queue()
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        try:
            while (line := lines.get(timeout=max(deadline - time.monotonic(), 0.01))) is not None:
                if line.startswith(MARK):
                    yield json.loads(line.removeprefix(MARK))
            if process.wait(timeout=max(deadline - time.monotonic(), 5.0)):
                said = tail(errors)
                last = [text.strip() for text in said.splitlines() if text.strip()][-1:]
                note = (last or [f"exit code {process.returncode}"])[0][:300]
                yield {**failed, "status": "failed", "note": note, "said": said}
        except (queue.Empty, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
            yield {**failed, "status": "stopped", "note": f"not done after {seconds:.0f} s", "said": tail(errors)}
        finally:
            process.kill()
            process.wait()


def tail(file: IO[str]) -> str:
    """The end of what was written."""
    file.seek(0)
    return file.read()[-4000:]


def in_this_process(job: Job, device: str) -> list[dict[str, Any]]:
    """All rows, for shapes so small that starting a process would be most of the time."""
    from benchmarks.gpu_tools import reason

    rows: list[dict[str, Any]] = []
    try:
        measure(job, device, rows.append)
    except Exception as error:
        rows.append({"part": job.part, "row": job.row, "try": job.more, "status": "failed", "note": reason(error)})
    return rows


def carry_out(jobs: list[Job], results: Any, device: str, seconds: float, alone: bool) -> None:
    """One job after the other while there is time; what is left out is a row."""
    deadline = time.monotonic() + seconds
    for job in jobs:
        left = deadline - time.monotonic()
        if left < job.least:
            note = f"{left:.0f} s were left, it needs at least {job.least:.0f}"
            results.add({"part": job.part, "row": job.row, "try": job.more, "status": "skipped", "note": note})
            continue
        for row in in_a_process(job, device, min(job.most, left)) if alone else in_this_process(job, device):
            results.add(row)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes: does it run?")
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for everything (default: 9)")
    parser.add_argument(
        "--output", type=Path, help="folder for results (default: experiments/gpu; of --smoke, a temporary one)"
    )
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    started = time.monotonic()
    if options.job:
        be_the_process(options.job, options.device)
        return 0
    if not options.minutes > 0:
        parser.error(f"--minutes must be above 0, not {options.minutes:g}")
    if options.device == "cpu" and not options.smoke:
        parser.error("--device cpu only shows that it runs: add --smoke")
    import torch

    from benchmarks.gpu_results import Results

    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device here: --device cpu --smoke shows that it runs")
    typed = sys.argv[1:] if arguments is None else arguments
    output = options.output or (Path(tempfile.gettempdir(), "gpu-smoke") if options.smoke else Path("experiments/gpu"))
    results = Results(output, options.device, shlex.join(["python", "-m", "benchmarks.gpu", *typed]))
    jobs = smoke_jobs() if options.smoke else full_jobs()
    jobs = [job for job in jobs if options.part in ("all", job.part) or job.part == "ceiling"]
    seconds = options.minutes * 60 - (time.monotonic() - started)
    carry_out(jobs, results, options.device, seconds, alone=not options.smoke)
    print(f"written to {output}/RESULTS.md and results.json")
    for row in results.wrong:
        print(results.line(row), file=sys.stderr)
    return 1 if results.wrong else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the process that measures is ended, too
    sys.exit(main())
