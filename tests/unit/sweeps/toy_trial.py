"""Stands in for `fit`: a run of a few short steps with a checkpoint after each, that can be made to end in many ways."""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
import time
from pathlib import Path


def loss(lr: float, width: int, seed: int, step: int) -> float:
    """A bowl around lr = 0.01, better for wider models, falling with time, with a little noise by seed."""
    return abs(math.log10(lr) + 2) + 64 / width + 1 / step + 0.01 * ((seed * 7919 + step * 31) % 10)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("-c", action="append")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--end", default="well")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    run, stops = options.run, []
    run.mkdir(parents=True, exist_ok=True)
    with (run / "starts.log").open("a") as stream:
        environment = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")}
        stream.write(json.dumps({"pid": os.getpid(), **environment}) + "\n")
    starts = len((run / "starts.log").read_text().splitlines())
    if options.end == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: stops.append(1))
    if options.end == "mistake":
        print("lightning-nlp: error: unknown key 'model.widht'; did you mean 'model.width'?", file=sys.stderr)
        return 2
    saved = run / "saved.json"
    step = json.loads(saved.read_text())["step"] if saved.exists() else 0
    while step < options.steps:
        time.sleep(options.sleep)
        step += 1
        value = loss(options.lr, options.width, options.seed, step)
        if options.end == "nan" and step >= 3:
            value = math.nan
        name = "val/los" if options.end == "nameless" else "val/loss"
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write(json.dumps({"step": step, "tokens": 10 * step, "train/loss": value, name: value}) + "\n")
        partial = saved.with_suffix(".partial")
        partial.write_text(json.dumps({"step": step}))
        partial.replace(saved)
        if stops:
            return 143
        if options.end == "memory" and step >= 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 2:
            if options.end == "crash":
                raise RuntimeError("a tensor of the wrong shape")
            if options.end == "memory_once" and starts == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if options.end in ("hang", "stubborn"):
                time.sleep(30 if options.end == "stubborn" else 0)
                while not stops:
                    time.sleep(0.02)
                return 143
        if options.end == "budget":
            return 85 if step < options.steps else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
