"""Peak memory and CPU-seconds of the language-model loss, forward and backward, beside full logits.

python -m benchmarks.lm_loss [--json FILE] [--rounds N]

Extra memory is what the process grows by, at its highest, while the loss and its gradients are computed: logits,
buffers, and the gradients of hidden states and weight themselves (77 MB of it in float32 at V=50257, D=384).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROWS, VOCABULARY, WIDTH = 1024, 50257, 384
FORMS = ("chunked", "full", "torch auto", "torch 256 rows")
FLOOR, AIM = 130, 110


def measure(form: str, dtype: str, rows: int) -> dict[str, float]:
    """One form, in this process: extra megabytes and CPU-seconds of one forward and backward."""
    import torch
    import torch.nn.functional as F

    from lightning_nlp.backbone.loss import linear_cross_entropy

    torch.set_num_threads(1)
    kind = getattr(torch, dtype)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.empty(rows, WIDTH, dtype=kind).normal_(generator=generator).requires_grad_()
    weight = torch.empty(VOCABULARY, WIDTH, dtype=kind).normal_(std=0.02, generator=generator).requires_grad_()
    labels = torch.randint(0, VOCABULARY, (rows,), generator=generator)

    def step(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> float:
        if form in ("chunked", "full"):
            total, _ = linear_cross_entropy(hidden, weight, labels, chunked=form == "chunked")
        else:
            options = torch.nn.LinearCrossEntropyOptions()
            if form == "torch 256 rows":
                options = torch.nn.LinearCrossEntropyOptions(
                    batch_chunk_size=256, chunking_method=None, acc_policy="accurate"
                )
            total = F.linear_cross_entropy(hidden, weight, labels, reduction="sum", options=options)
        (total / rows).backward()
        return float(total.detach())

    small = [x.detach()[:8].clone().requires_grad_() for x in (hidden, weight)]
    step(*small, labels[:8] % 8)  # libraries make their buffers
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loss = step(hidden, weight, labels)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(2):
        hidden.grad = weight.grad = None
        start = time.process_time()
        step(hidden, weight, labels)
        seconds.append(time.process_time() - start)
    return {"megabytes": (peak - before) * 1024 / 1e6, "seconds": min(seconds), "loss": loss / rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--one", nargs=2, metavar=("FORM", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one, options.rows)))
        return
    table = []
    print(f"{'dtype':<9} {'form':<15} {'extra MB':>9} {'CPU-s':>7} {'of full':>8} {'loss':>9}")
    for dtype in ("float32", "bfloat16"):
        found: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
        for _ in range(options.rounds):
            for form in FORMS:
                command = [
                    sys.executable,
                    "-m",
                    "benchmarks.lm_loss",
                    "--one",
                    form,
                    dtype,
                    "--rows",
                    str(options.rows),
                ]
                run = subprocess.run(
                    command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
                )
                found[form].append(json.loads(run.stdout))
        full = median(value["seconds"] for value in found["full"])
        for form, values in found.items():
            megabytes = median(value["megabytes"] for value in values)
            seconds = median(value["seconds"] for value in values)
            loss = values[0]["loss"]
            print(f"{dtype:<9} {form:<15} {megabytes:>9.0f} {seconds:>7.3f} {seconds / full:>8.2f} {loss:>9.4f}")
            if form == "chunked":
                row = {"row": f"extra memory of the loss, {dtype}", "peer": "full logits", "ratio": megabytes}
                limits = {"floor": FLOOR, "aim": AIM, "unit": "MB", "note": f"time {seconds / full:.2f} of full logits"}
                table.append({**row, "low": megabytes, "high": megabytes, **limits})
    if options.json:
        options.json.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
