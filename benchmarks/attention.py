"""Document-masked attention on one CPU core: ours beside PyTorch's kernel with a boolean mask.

python -m benchmarks.attention [--json FILE] [--quick]

Rows of T tokens packed with documents of equal length; forward and backward, mask included. In a model the mask is made
once for all layers, here once a step.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row, alternate, compare, report

WANTED = {"float32": (4.0, 6.0), "bfloat16": (2.5, 3.0)}


def contestant(spec: dict) -> None:
    """Repeat attention of packed rows, forward and backward."""
    import torch
    import torch.nn.functional as F

    from lightning_nlp.backbone.attention import attend
    from lightning_nlp.backbone.masks import AttentionMask

    torch.manual_seed(0)
    torch.set_num_threads(1)
    batch, heads, length, documents = spec["batch"], 6, spec["length"], spec["documents"]
    dtype = getattr(torch, spec["dtype"])
    query, key, value = (torch.randn(batch, heads, length, 64).to(dtype).requires_grad_() for _ in range(3))
    slope = torch.randn(batch, heads, length, 64).to(dtype)
    segments = torch.arange(1, documents + 1).repeat_interleave(length // documents).expand(batch, -1).contiguous()

    def ours() -> torch.Tensor:
        return attend(query, key, value, AttentionMask(True, segments))

    def masked() -> torch.Tensor:
        same = segments[:, None, :, None] == segments[:, None, None, :]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=same.tril())

    torch.testing.assert_close(ours(), masked(), rtol=0.05, atol=0.05)
    chosen = {"ours": ours, "mask": masked}[spec["kind"]]

    def step() -> None:
        query.grad = key.grad = value.grad = None
        chosen().backward(slope)

    harness.repeat(step, warm_up=2)


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=harness.ROUNDS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, three rounds: does it run?")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        contestant(json.loads(options.contestant))
    batch, length, documents, rounds = options.batch, 1024, 8, options.rounds
    if options.quick:
        batch, length, documents, rounds = 2, 64, 4, 3
    rows: list[Row] = []
    for dtype, (floor, aim) in WANTED.items():
        sizes = {"dtype": dtype, "batch": batch, "length": length, "documents": documents}
        specs = {kind: json.dumps({"kind": kind, **sizes}) for kind in ("ours", "mask")}
        seconds = alternate({k: ["-m", "benchmarks.attention", "--contestant", s] for k, s in specs.items()}, rounds)
        label = f"attention {documents} documents in T={length} h6 d64 B{batch} {dtype}"
        rows += compare(seconds, "ours", "mask", label, "SDPA, boolean mask", floor=floor, aim=aim)
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
