"""How gradients reach the first layers of deep stacks, and what norms, initial weights and clipping do about it.

python -m experiments.gradient_flow [--steps 150] [--depths 4 24 48] [--remedies NAME ...] [--json FILE]

A decoder of width 64 learns the bytes of the standard library's documentation strings. For every remedy and depth:
gradient norms of the first and the last block and their ratio before any step, the largest norm of all gradients met in
training, and the loss at the end, without and with clipping at 1. One learning rate for all, warmed up over a tenth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.data.sources.files import data_directory
from lightning_nlp.optim.optimizers import OptimizerConfig, build_optimizer

REMEDIES: dict[str, dict[str, Any]] = {
    "post-norm": {"norm_placement": "post", "init": "bert"},
    "post-norm, xavier": {"norm_placement": "post", "init": "xavier"},
    "pre-norm": {"init": "bert"},
    "pre-norm, scaled outputs": {"init": "gpt2"},
    "pre-norm, small init": {"init": "small"},
    "sandwich": {"norm_placement": "sandwich", "init": "gpt2"},
}
WIDTH, LENGTH, BATCH = 64, 64, 8


def corpus() -> Tensor:
    """Bytes of the language-modelling sample, which ``lightning-nlp data build stdlib_docs`` makes."""
    lines = (data_directory() / "stdlib_docs" / "train.jsonl").read_text().splitlines()
    text = "\n".join(json.loads(line)["text"] for line in lines[:200])
    return torch.tensor(list(text.encode()))


def block_norms(model: nn.ModuleDict) -> list[float]:
    """Gradient norm of every block."""
    blocks = model["backbone"].blocks()  # type: ignore[operator]
    return [float(torch.nn.utils.get_total_norm([p.grad for p in block.parameters()])) for block in blocks]


def train(remedy: dict[str, Any], depth: int, clip: bool, data: Tensor, steps: int, lr: float) -> dict[str, Any]:
    """One training; the same batches for all."""
    shape = {"n_layers": depth, "d_model": WIDTH, "n_heads": 4, "vocab_size": 256, "max_length": LENGTH, "bias": True}
    config = TransformerConfig(**{**shape, "positions": "learned", **remedy})
    torch.manual_seed(0)
    model = nn.ModuleDict({"backbone": Transformer(config), "output": TokenOutput(config)})
    init_weights(model, config)
    optimizer = build_optimizer(model, OptimizerConfig(lr=lr, weight_decay=0.0))
    generator = torch.Generator().manual_seed(1)
    first: list[float] = []
    losses, norms = [], []
    for step in range(steps):
        starts = torch.randint(0, len(data) - LENGTH - 1, (BATCH,), generator=generator)
        rows = torch.stack([data[start : start + LENGTH + 1] for start in starts.tolist()])
        hidden = model["backbone"](rows[:, :-1])
        total, count = model["output"].loss(  # type: ignore[operator]
            hidden.flatten(0, 1), model["backbone"].embedding_weight, rows[:, 1:].flatten()
        )
        (total / count).backward()
        first = first or block_norms(model)
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), 1.0 if clip else float("inf"))))
        losses.append(float(total.detach() / count))
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / (0.1 * steps))
        optimizer.step()
        optimizer.zero_grad()
    return {
        "first": first[0],
        "last": first[-1],
        "ratio": first[0] / first[-1],
        "largest": max(norms),
        "loss": mean(losses[-10:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--depths", type=int, nargs="+", default=[4, 24, 48])
    parser.add_argument("--remedies", nargs="+", choices=REMEDIES, default=list(REMEDIES))
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    data, rows = corpus(), []
    print(
        f"{'remedy':<26} {'depth':>5} {'first':>9} {'last':>9} {'ratio':>8} {'largest':>8} {'loss':>6} {'clipped':>8}"
    )
    for depth in options.depths:
        for name in options.remedies:
            remedy = REMEDIES[name]
            free = train(remedy, depth, False, data, options.steps, options.lr)
            clipped = train(remedy, depth, True, data, options.steps, options.lr)
            rows.append({"remedy": name, "depth": depth, **free, "loss_clipped": clipped["loss"]})
            print(
                f"{name:<26} {depth:>5} {free['first']:>9.2e} {free['last']:>9.2e} {free['ratio']:>8.2g}"
                f" {free['largest']:>8.3g} {free['loss']:>6.3f} {clipped['loss']:>8.3f}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
