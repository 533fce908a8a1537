"""Does pre-training on the same sentences help sentiment? Five seeds of SST-2, every arm at its own learning rate.

python -m experiments.sst2 [--root runs/sst2]

An arm's rate is the one of three with the best validation accuracy for the first seed, and then stays. ``long`` trains
from scratch for as many updates as pre-training and fine-tuning take together. What has been trained already is kept,
so that the command can be given again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

from lightning_nlp.sweeps.statistics import half_width

ARMS = ("pretrained", "scratch", "long")
RATES = ("2.0e-4", "5.0e-4", "1.0e-3")
SEEDS = (1, 2, 3, 4, 5)
MORE = {"pretrained": [], "scratch": [], "long": ["--trainer.max_steps", "2600", "--trainer.validate_every", "200"]}


def command(*words: object) -> None:
    """A command of lightning-nlp that must end well."""
    subprocess.run([sys.executable, "-m", "lightning_nlp", *map(str, words)], check=True)


def fit(run: Path, config: str, seed: int, *more: object) -> None:
    """Train, or go on, unless that is done."""
    status = run / "status.json"
    if status.is_file() and json.loads(status.read_text())["state"] == "done":
        return
    where = ["--run", run] if status.is_file() else ["--root", run.parent, "--name", run.name]
    command("fit", "-c", config, *where, "--seed_everything", seed, *more)


def train(root: Path, arm: str, rate: str, seed: int) -> Path:
    """The finished run of one arm."""
    run, more = root / f"{arm}-{rate}-{seed}", list(MORE[arm])
    if arm == "pretrained":
        fit(root / f"mlm-{seed}", "experiments/sst2_mlm.yaml", seed)
        if not run.exists():  # a run that goes on has its weights
            more += ["--init_from", str(root / f"mlm-{seed}")]
    fit(run, "experiments/sst2.yaml", seed, "--model.optimizer.lr", rate, *more)
    return run


def validated(run: Path) -> float:
    """Best validation accuracy of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max(line["val/accuracy"] for line in lines if "val/accuracy" in line)


def tested(run: Path) -> float:
    """Test accuracy of the checkpoint with the best validation accuracy."""
    report = run / "reports" / "test.test.json"
    if not report.is_file():
        command("test", "--run", run)
    return float(json.loads(report.read_text())["metrics"]["test/accuracy"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("runs/sst2"))
    root = parser.parse_args().root
    found: dict[str, list[float]] = {arm: [] for arm in ARMS}
    rates = {}
    for arm in ARMS:
        of = {rate: validated(train(root, arm, rate, SEEDS[0])) for rate in RATES}
        rates[arm] = max(of, key=lambda rate: of[rate])
        print(f"{arm}: validation accuracy {of}: takes {rates[arm]}", flush=True)
    for seed in SEEDS:
        for arm in ARMS:
            run = train(root, arm, rates[arm], seed)
            found[arm].append(tested(run))
            print(f"seed {seed} {arm} {rates[arm]}: test {found[arm][-1]:.4f}", flush=True)
    for arm, values in found.items():
        half = half_width(values) or 0.0
        print(f"{arm:12} lr {rates[arm]}  test accuracy {mean(values):.4f} ± {half:.4f}  ({len(values)} seeds)")
    for arm in ARMS[1:]:
        gains = [one - other for one, other in zip(found[ARMS[0]], found[arm], strict=True)]
        print(f"pretrained - {arm}: {mean(gains):+.4f} ± {half_width(gains) or 0.0:.4f} (same seeds)")


if __name__ == "__main__":
    main()
