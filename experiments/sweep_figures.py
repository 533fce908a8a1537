"""Pictures and tables of the recorded sweeps, from their ledgers.

python -m experiments.sweep_figures [--root runs/sweeps] [--output experiments/figures]

lr_width: validation loss by learning rate, a line for every width, intervals over seeds.
asha_random and random_search: the best found so far by processor seconds spent.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

WIDTH, RATE = "model.backbone.d_model", "model.optimizer.lr"


def ledger(directory: Path) -> list[dict[str, Any]]:
    """Configurations of a sweep with their trials."""
    command = [sys.executable, "-m", "lightning_nlp", "sweep", "status", str(directory), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return list(json.loads(done.stdout)["configurations"])


def draw_widths(axes: Any, found: list[dict[str, Any]]) -> None:
    """And print the table."""
    rates = sorted({each["settings"][RATE] for each in found})
    print(f"| width | {' | '.join(f'{rate:g}' for rate in rates)} |")
    print("|---" * (len(rates) + 1) + "|")
    for width in sorted({each["settings"][WIDTH] for each in found}):
        row = {each["settings"][RATE]: each for each in found if each["settings"][WIDTH] == width}
        values, intervals = [row[rate]["value"] for rate in rates], [row[rate]["interval"] for rate in rates]
        cells = [f"{value:.3f} ± {half:.3f}" for value, half in zip(values, intervals, strict=True)]
        print(f"| {width} | {' | '.join(cells)} |")
        axes.errorbar(rates, values, yerr=intervals, marker="o", capsize=3, label=f"d_model {width}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="validation loss", title="mean of three seeds, 95 % interval")
    axes.legend()


def draw_search(axes: Any, name: str, found: list[dict[str, Any]]) -> None:
    """Best value so far by processor time; and a line of totals."""
    trials = [trial for each in found for trial in each["trials"]]
    trials.sort(key=lambda trial: max(attempt["started"] + attempt["seconds"] for attempt in trial["attempts"]))
    spent, best, seconds, values = 0.0, float("inf"), [0.0], [float("nan")]
    for trial in trials:
        spent += sum(attempt["cpu_seconds"] for attempt in trial["attempts"])
        if trial["state"] == "done" and trial["value"] < best:
            best = trial["value"]
        seconds.append(spent)
        values.append(best if best < float("inf") else float("nan"))
    axes.step(seconds, values, where="post", label=name)
    steps, states = sum(trial["step"] for trial in trials), [trial["state"] for trial in trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    print(f"| {name} | {counts} | {steps} | {spent:.0f} | {best:.4f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/sweeps"))
    parser.add_argument("--output", type=Path, default=Path("experiments/figures"))
    options = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    options.output.mkdir(parents=True, exist_ok=True)
    if (options.root / "lr_width").is_dir():
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        draw_widths(axes, ledger(options.root / "lr_width"))
        figure.savefig(options.output / "lr_width.png", dpi=110)
    searches = [name for name in ("random_search", "asha_random") if (options.root / name).is_dir()]
    if searches:
        figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
        print("\n| sweep | trials | steps | CPU-seconds | best validation loss |\n|---|---|---|---|---|")
        for name in searches:
            draw_search(axes, name, ledger(options.root / name))
        axes.set(xlabel="processor seconds of all trials", ylabel="best validation loss so far")
        axes.legend()
        figure.savefig(options.output / "asha_random.png", dpi=110)


if __name__ == "__main__":
    main()
