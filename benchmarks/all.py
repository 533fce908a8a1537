"""Every benchmark of this folder, one after the other, on a machine that does nothing else.

python -m benchmarks.all [--json FILE] [--only NAME ...]

Rows of all of them go into one JSON file; a benchmark that fails is named, and the others still run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NAMES = ("startup", "train_step", "fit", "overhead", "attention", "loss", "decode", "data")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    options = parser.parse_args()
    rows, failed = [], []
    for name in options.only:
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.json"
            done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)], check=False)
            if done.returncode or not file.is_file():
                failed.append(name)
            else:
                rows += [{"benchmark": name, **row} for row in json.loads(file.read_text())]
        print(f"   {time.perf_counter() - started:.0f} s", flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
