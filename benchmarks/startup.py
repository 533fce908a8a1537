"""CPU-seconds until the command line answers, beside a bare LightningCLI; and until the quickstart's first step.

python -m benchmarks.startup [--json FILE]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.harness import Row, report

PEER = "from lightning.pytorch.cli import LightningCLI; LightningCLI(args=['fit', '--help'])"


def cpu_seconds(command: list[str], repeats: int) -> list[float]:
    """User + system seconds of a command and its children, several times."""
    seconds = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return seconds


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    options = parser.parse_args(arguments)
    python = [sys.executable]
    light = cpu_seconds([*python, "-m", "lightning_nlp", "--help"], 9)
    peer = cpu_seconds([*python, "-c", PEER], 3)
    imports = cpu_seconds([*python, "-c", "import torch, lightning.pytorch"], 3)
    with tempfile.TemporaryDirectory() as root:
        fit = [*python, "-m", "lightning_nlp", "fit", "-c", "configs/quickstart.yaml", "--root", root, "--overwrite"]
        one_step = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.logger", "false"]
        cpu_seconds([*fit, *one_step], 1)  # builds the sample once
        first = cpu_seconds([*fit, *one_step], 3)
    middle = median(peer)
    note = f"{median(light):.3f} and {middle:.3f} CPU-s"
    least, most = middle / max(light), middle / min(light)
    rows = [
        Row("--help", "LightningCLI fit --help", middle / median(light), least, most, 25, 60, "x", note),
        Row(
            "first step of the quickstart",
            "-",
            median(first),
            min(first),
            max(first),
            12,
            8,
            "CPU-s",
            f"import torch, lightning.pytorch: {median(imports):.2f} CPU-s",
            smaller=True,
        ),
    ]
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
