"""Tiny Shakespeare (Karpathy 2015) cut as its published losses are measured: 90 % for training, windows of 64 letters.

python -m experiments.tiny_shakespeare FILE [--output data/tiny_shakespeare_windows] [--length 64]

A row holds 65 characters: 64 to read, and for each of them the one to predict. Windows of the last 10 % follow each
other, so that every character of it is predicted once, from what its own window holds; training has whole windows only.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, default=Path("data/tiny_shakespeare_windows"))
    parser.add_argument("--length", type=int, default=64)
    options = parser.parse_args()
    text = options.file.read_text(encoding="utf-8")
    border = int(0.9 * len(text))
    options.output.mkdir(parents=True, exist_ok=True)
    for split, part in (("train", text[:border]), ("validation", text[border:])):
        last = len(part) - (options.length if split == "train" else 1)
        rows = [part[start : start + options.length + 1] for start in range(0, last, options.length)]
        with (options.output / f"{split}.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"text": row}) + "\n" for row in rows)
        print(f"{split}: {len(part)} characters, {len(rows)} windows")


if __name__ == "__main__":
    main()
