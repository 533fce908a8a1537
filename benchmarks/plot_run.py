"""Learning curves of a run as one picture.

python -m benchmarks.plot_run --run runs/quickstart --output docs/quickstart.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    lines = [json.loads(line) for line in (options.run / "metrics.jsonl").read_text().splitlines()]
    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for name, style in (("train/loss", {"alpha": 0.6}), ("val/loss", {"marker": "o"})):
        points = [(line["tokens"] / 1e6, line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True), label=name, **style)
    axes.set(xlabel="million tokens", ylabel="nats a token", title=options.run.name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(options.output, dpi=110)


if __name__ == "__main__":
    main()
