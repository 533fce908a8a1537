"""Multi30k (Elliott et al. 2016) as tokenised lower-case text, out of files cut by subword-nmt.

python -m experiments.multi30k FOLDER [--output data/multi30k]

FOLDER holds ``train.bpe.en``, ``valid.bpe.en``, ``test.2016.bpe.en`` and the same in German, in which "@@ " joins
pieces of words. Published scores of Transformer-tiny are of the text with the pieces joined, and so is ours; pieces are
our own tokenizer's, of as many kinds.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SPLITS = {"train": "train", "valid": "validation", "test.2016": "test"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", type=Path, default=Path("data/multi30k"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for theirs, ours in SPLITS.items():
        for language in ("en", "de"):
            text = (options.folder / f"{theirs}.bpe.{language}").read_text(encoding="utf-8").replace("@@ ", "")
            (options.output / f"{ours}.{language}").write_text(text, encoding="utf-8")
            print(f"{options.output / ours}.{language}: {text.count(chr(10))} lines")


if __name__ == "__main__":
    main()
