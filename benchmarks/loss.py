"""The language-model loss on one CPU core: peak memory and time beside cross-entropy over all logits.

python -m benchmarks.loss [--json FILE] [--quick]

Memory is the growth of the process's peak resident size over the first step (hidden states and matrix excluded, the
gradients included), so that every contestant's number comes from a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Row, alternate, compare, report


def peak_bytes() -> int:
    """The most memory this program ever held resident (Linux).

    Not ``ru_maxrss``: that is handed on to children, and would be the size of whoever started this process.
    """
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def contestant(spec: dict) -> None:
    """Repeat loss and gradients; or, asked for ``memory``, print the megabytes of one."""
    import torch
    import torch.nn.functional as F

    from lightning_nlp.backbone.loss import linear_cross_entropy

    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows, width, vocabulary = spec["rows"], spec["width"], spec["vocabulary"]
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(vocabulary, width).mul_(0.02).requires_grad_()
    labels = torch.randint(vocabulary, (rows,))

    def step() -> None:
        hidden.grad = weight.grad = None
        if spec["kind"] == "ours":
            total, count = linear_cross_entropy(hidden, weight, labels)
            (total / count).backward()
        else:
            F.cross_entropy(F.linear(hidden, weight), labels).backward()

    if spec.get("memory"):
        torch.mm(hidden[:8].detach(), weight[:8].detach().T)  # libraries are loaded before the measuring
        before = peak_bytes()
        step()
        print((peak_bytes() - before) / 1e6)
        raise SystemExit(0)
    harness.repeat(step, warm_up=1)


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=harness.ROUNDS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, three rounds: does it run?")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        contestant(json.loads(options.contestant))
    sizes = {"rows": 1024, "width": 384, "vocabulary": 50257}
    rounds, repeats = options.rounds, 3
    if options.quick:
        sizes, rounds, repeats = {"rows": 512, "width": 64, "vocabulary": 50257}, 3, 1
    label = f"loss N={sizes['rows']} D={sizes['width']} V={sizes['vocabulary']} fp32"
    command = ["-m", "benchmarks.loss", "--contestant"]
    megabytes = {}
    for kind in ("ours", "full"):
        asked = [*command, json.dumps({"kind": kind, "memory": True, **sizes})]
        found = [
            subprocess.run([sys.executable, *asked], capture_output=True, text=True, check=True) for _ in range(repeats)
        ]
        megabytes[kind] = sorted(float(done.stdout) for done in found)
    low, middle, high = megabytes["ours"][0], megabytes["ours"][repeats // 2], megabytes["ours"][-1]
    note = f"all logits: {megabytes['full'][repeats // 2]:.0f} MB"
    rows = [Row(f"{label}, extra peak memory", "all logits", middle, low, high, 130, 110, "MB", note, smaller=True)]
    specs = {kind: [*command, json.dumps({"kind": kind, **sizes})] for kind in ("ours", "full")}
    rows += compare(alternate(specs, rounds), "ours", "full", f"{label}, time", "all logits", floor=1.0, aim=1.0)
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
