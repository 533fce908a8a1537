"""Training steps beside nanoGPT's model, transformers and litgpt on one CPU core, with each knob on and off.

python -m benchmarks.train_step [--json FILE] [--shape SHAPE] [--group GROUP] [--batch B] [--quick]

A step is forward, backward and fused AdamW on a fixed pool of random tokens; ``benchmarks.fit`` compares whole
training loops.
Rows pair equal numerics (float32 with float32, bfloat16 with bfloat16) unless their name says otherwise. "tuned" is the
C library's allocator told to keep memory (``trainer.tune_allocator``), for both sides.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Row, alternate, compare, report
from benchmarks.peers import MODELS, Shape

SHAPES = {
    "4L/256d/V8192": Shape(layers=4, width=256, heads=4, length=256, vocabulary=8192, batch=8),
    "6L/384d/V50257": Shape(layers=6, width=384, heads=6, length=256, vocabulary=50257, batch=8),
}
QUICK = {"1L/32d/V97": Shape(layers=1, width=32, heads=2, length=16, vocabulary=97, batch=2)}

CONTESTANTS: dict[str, dict[str, Any]] = {
    "ours fp32": {"model": "ours", "numerics": "fp32"},
    "nano fp32": {"model": "nano", "numerics": "fp32"},
    "transformers fp32": {"model": "transformers", "numerics": "fp32"},
    "litgpt fp32": {"model": "litgpt", "numerics": "fp32"},
    "ours master": {"model": "ours", "numerics": "master"},
    "ours autocast": {"model": "ours", "numerics": "autocast"},
    "nano autocast": {"model": "nano", "numerics": "autocast"},
    "ours fp32 foreach": {"model": "ours", "numerics": "fp32", "fused": False},
    "ours fp32 blocks": {"model": "ours", "numerics": "fp32", "compiled": True},
    "nano fp32 compiled": {"model": "nano", "numerics": "fp32", "compiled": True},
}
TUNED = ("ours fp32", "nano fp32", "ours master", "nano autocast")
CONTESTANTS |= {f"{name} tuned": {**CONTESTANTS[name], "tuned": True} for name in TUNED}

PLAIN = ("ours fp32", "nano fp32", "transformers fp32", "ours master", "nano autocast")
GROUPS = {
    "4L/256d/V8192": {
        "eager": (*PLAIN, "litgpt fp32", "ours autocast", "ours fp32 foreach", *(f"{name} tuned" for name in TUNED)),
        "compiled": ("ours fp32", "ours fp32 blocks", "nano fp32 compiled"),
    },
    "6L/384d/V50257": {
        "as they are": PLAIN,
        "tuned": tuple(f"{name} tuned" for name in TUNED),
        "compiled": ("ours fp32", "nano fp32 compiled"),
    },
    "1L/32d/V97": {"eager": ("nano fp32", "ours master", "nano autocast")},
}
"""Who alternates with whom: as many at a time as fit into 16 GB."""

COMPARISONS = (
    # ours, peer, row, peer as shown, floor, aim
    ("ours fp32", "nano fp32", "fp32", "nanoGPT", 1.06, 1.15),
    ("ours fp32", "transformers fp32", "fp32", "transformers", 1.1, 1.4),
    ("ours fp32", "litgpt fp32", "fp32", "litgpt", None, None),
    ("ours fp32 tuned", "nano fp32 tuned", "fp32", "nanoGPT, both tuned", 0.97, 1.05),
    ("ours fp32", "nano fp32 compiled", "fp32", "nanoGPT compiled", 0.97, 1.05),
    ("ours fp32 blocks", "nano fp32 compiled", "fp32, blocks compiled", "nanoGPT compiled", None, None),
    ("ours master", "nano autocast", "bf16-master", "nanoGPT autocast", 1.15, 1.35),
    ("ours master", "nano fp32", "bf16-master", "nanoGPT fp32", 1.7, 2.1),
    ("ours master tuned", "nano autocast tuned", "bf16-master", "nanoGPT autocast, both tuned", None, None),
    ("ours master tuned", "nano fp32 tuned", "bf16-master", "nanoGPT fp32, both tuned", None, None),
    ("ours autocast", "nano autocast", "bf16 autocast", "nanoGPT autocast", None, None),
    ("ours master", "ours autocast", "bf16-master", "ours in autocast", None, None),
    ("ours fp32 tuned", "ours fp32", "tuned", "ours fp32", None, None),
    ("ours master tuned", "ours master", "tuned", "ours bf16-master", None, None),
    ("nano fp32 tuned", "nano fp32", "tuned", "nanoGPT fp32", None, None),
    ("nano autocast tuned", "nano autocast", "tuned", "nanoGPT autocast", None, None),
    ("ours fp32 blocks", "ours fp32", "blocks compiled", "ours fp32", None, None),
    ("ours fp32", "ours fp32 foreach", "fused AdamW", "ours with foreach AdamW", None, None),
)


def contestant(spec: dict[str, Any]) -> None:
    """Repeat the training step that ``spec`` describes."""
    if spec.get("tuned"):
        from lightning_nlp.run import allocator

        if unable := allocator.tune():
            harness.missing(unable)
    import torch

    from lightning_nlp.optim.master_weights import MasterWeights

    torch.manual_seed(0)
    torch.set_num_threads(1)
    shape = Shape(**spec["shape"])
    model, loss = MODELS[spec["model"]](shape)
    weights = MasterWeights(model)
    numerics = {
        "fp32": contextlib.nullcontext,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
        "master": weights.computing,
    }[spec["numerics"]]
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-4, fused=spec.get("fused", True), foreach=not spec.get("fused", True)
    )
    if spec.get("compiled") and spec["model"] == "ours":
        from lightning_nlp.backbone.block import Block

        for block in model.modules():
            if isinstance(block, Block):
                block.compile()
    elif spec.get("compiled"):
        model.compile()
    pool = torch.randint(shape.vocabulary, (8, 2, shape.batch, shape.length))
    count = 0

    def step() -> None:
        nonlocal count
        tokens, labels = pool[count % len(pool)]
        count += 1
        optimizer.zero_grad(set_to_none=True)
        with numerics():
            value = loss(model, tokens, labels)
        value.backward()
        optimizer.step()
        weights.changed()

    harness.repeat(step, warm_up=2)


def measure(label: str, shape: Shape, rounds: int, groups: dict[str, tuple[str, ...]]) -> list[Row]:
    """All comparisons of one shape whose contestants are in the same group."""
    rows: list[Row] = []
    for group, names in groups.items():
        print(f"{label}, {group}", file=sys.stderr)
        specs = {name: json.dumps({**CONTESTANTS[name], "shape": asdict(shape)}) for name in names}
        seconds = alternate(
            {n: ["-m", "benchmarks.train_step", "--contestant", spec] for n, spec in specs.items()}, rounds
        )
        for ours, peer, row, shown, floor, aim in COMPARISONS:
            rows += compare(seconds, ours, peer, f"step {label} B{shape.batch} {row}", shown, floor=floor, aim=aim)
    return rows


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=harness.ROUNDS)
    parser.add_argument("--batch", type=int, help="rows of a batch (default: 8)")
    parser.add_argument("--shape", choices=[name for name in SHAPES], help="only this one")
    parser.add_argument("--group", help="only this group of contestants: eager, compiled, as they are, tuned")
    parser.add_argument("--quick", action="store_true", help="a tiny model, three rounds: does it run?")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        contestant(json.loads(options.contestant))
    shapes = QUICK if options.quick else {options.shape: SHAPES[options.shape]} if options.shape else SHAPES
    rounds = 3 if options.quick else options.rounds
    rows: list[Row] = []
    for label, shape in shapes.items():
        if options.batch:
            shape = replace(shape, batch=options.batch)
        groups = {name: who for name, who in GROUPS[label].items() if options.group in (None, name)}
        rows += measure(label, shape, rounds, groups)
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
