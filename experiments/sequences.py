"""Sequences of numbers to copy, sort or reverse: the gates that Sockeye and JoeyNMT set for their own trainers.

python -m experiments.sequences [--output data/sequences]

copy, sort: Sockeye's system tests: digits, 1 to 9 of them, 10,000 lines to train on and 100 each to test.
reverse: JoeyNMT's tutorial: numbers below 50; 40,000 lines of up to 25 to train on, 1,000 each of up to 30 to test.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

Numbers = list[int]
TASKS: dict[str, Callable[[Numbers], Numbers]] = {"copy": list, "sort": sorted, "reverse": lambda line: line[::-1]}
SIZES = {
    "copy": {"train": (10_000, 9), "validation": (100, 9), "test": (100, 9)},
    "sort": {"train": (10_000, 9), "validation": (100, 9), "test": (100, 9)},
    "reverse": {"train": (40_000, 25), "validation": (1_000, 30), "test": (1_000, 30)},
}
"""Lines, and the longest of them."""
KINDS = {"copy": 10, "sort": 10, "reverse": 50}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("data/sequences"))
    options = parser.parse_args()
    for number, (name, change) in enumerate(TASKS.items()):
        draw = np.random.Generator(np.random.Philox(key=20260104 + number))
        folder = options.output / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, (count, longest) in SIZES[name].items():
            lines = [draw.integers(0, KINDS[name], draw.integers(1, longest + 1)).tolist() for _ in range(count)]
            for ending, rows in (("in", lines), ("out", [change(line) for line in lines])):
                text = "".join(" ".join(map(str, row)) + "\n" for row in rows)
                (folder / f"{split}.{ending}").write_text(text, encoding="utf-8")
        print(f"{folder}: {', '.join(f'{split} {count}' for split, (count, _) in SIZES[name].items())}")


if __name__ == "__main__":
    main()
