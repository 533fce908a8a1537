"""CPU-seconds until the command line answers, beside a bare LightningCLI; and until the quickstart's first step.

python -m benchmarks.startup [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

PEER = "from lightning.pytorch.cli import LightningCLI; LightningCLI(args=['fit', '--help'])"


def cpu_seconds(command: list[str], repeats: int, environment: dict[str, str] | None = None) -> float:
    """Median user + system seconds of a command and its children."""
    seconds = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, check=False, env={**os.environ, **(environment or {})})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    python = [sys.executable]
    light = cpu_seconds([*python, "-m", "lightning_nlp", "--help"], 9)
    peer = cpu_seconds([*python, "-c", PEER], 3)
    imports = cpu_seconds([*python, "-c", "import torch, lightning.pytorch"], 3)
    with tempfile.TemporaryDirectory() as root:
        fit = [*python, "-m", "lightning_nlp", "fit", "-c", "configs/quickstart.yaml", "--root", root, "--overwrite"]
        one_step = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0", "--trainer.logger", "false"]
        cpu_seconds([*fit, *one_step], 1)  # builds the sample once
        first = cpu_seconds([*fit, *one_step], 3)
    rows = [
        {
            "row": "--help",
            "peer": "LightningCLI fit --help",
            "ratio": peer / light,
            "floor": 25,
            "aim": 60,
            "unit": "x",
        },
        {"row": "first step of the quickstart", "peer": "-", "ratio": first, "floor": 12, "aim": 8, "unit": "CPU-s"},
    ]
    print(f"lightning-nlp --help                  {light:7.3f} CPU-s")
    print(f"LightningCLI fit --help               {peer:7.3f} CPU-s  ({peer / light:.0f} x)")
    print(f"import torch, lightning.pytorch       {imports:7.3f} CPU-s")
    print(f"quickstart up to and with one step    {first:7.3f} CPU-s")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
