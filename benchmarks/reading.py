"""Reading rows of local files beside the ``datasets`` library: as a stream, in order by number, and in shuffled blocks.

python -m benchmarks.reading [--kind csv] [--json FILE] [--quick]

A step reads 200,000 rows of 3 to 200 words: the library reads a stream in chunks of ten megabytes, and a smaller step
would now and then meet none. Opening a file, and the library's copy of it, is not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Row, alternate, compare, report
from benchmarks.memory import WORDS

KINDS = {"jsonl": "json", "csv": "csv", "txt": "text", "parquet": "parquet"}
WAYS = {"stream": "streamed", "order": "in order, by number", "blocks": "shuffled blocks, by number"}
STEP = 200_000


def write(directory: Path, rows: int) -> None:
    """The same texts in every format."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw, words = random.Random(0), WORDS.tolist()
    texts = [" ".join(draw.choices(words, k=draw.choice([3, 8, 20, 60, 200]))) for _ in range(rows)]
    (directory / "a.txt").write_text("".join(f"{text}\n" for text in texts))
    (directory / "a.jsonl").write_text(
        "".join(json.dumps({"text": text, "n": number}) + "\n" for number, text in enumerate(texts))
    )
    with (directory / "a.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("text", "n"), *zip(texts, range(rows), strict=True)])
    pq.write_table(pa.table({"text": texts, "n": range(rows)}), directory / "a.parquet", row_group_size=20_000)


def ours(path: Path, way: str) -> Iterator[Any]:
    """Rows without end, by our sources."""
    from lightning_nlp.data.order.blocks import BlockOrder
    from lightning_nlp.data.sources.source import SourceConfig, open_splits

    config = SourceConfig(path=str(path), streaming=way == "stream", text_unit="line", validation_fraction=0.0)
    source = open_splits(config, {"text": "text"})["train"]
    order = BlockOrder(source, seed=1, shuffle=True, block_rows=256, lanes=16)
    for block in itertools.count():
        if way == "blocks":
            reader = order.reader(block)
            for start in range(0, len(reader), 64):
                yield from reader.read(start, start + 64)
        else:
            yield from source.scan(0)


def theirs(path: Path, way: str) -> Iterator[Any]:
    """Rows without end, by the library, unchecked and without ids; as many at a time as ours, of blocks at random."""
    import datasets

    datasets.disable_progress_bars()
    found = datasets.load_dataset(
        KINDS[path.suffix[1:]], data_files={"train": str(path)}, split="train", streaming=way == "stream"
    ).select_columns(["text"])
    draw = random.Random(0)
    while True:
        if way == "stream":
            yield from found
        elif way == "order":
            for start in range(0, len(found), 256):
                yield from ({"text": text} for text in found[start : start + 256]["text"])
        else:
            yield from ({"text": text} for text in found[draw.sample(range(len(found)), 64)]["text"])


@contextlib.contextmanager
def derived_in(folder: str) -> Iterator[None]:
    """What is derived from files, ours and the library's, lies in a folder."""
    before = dict(os.environ)
    os.environ |= {"LIGHTNING_NLP_DATA": f"{folder}/derived", "HF_HOME": f"{folder}/hub"}
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def contestant(spec: dict[str, Any]) -> None:
    """Read, a step at a time."""
    rows = {"ours": ours, "theirs": theirs}[spec["who"]](Path(spec["path"]), spec["way"])
    harness.repeat(lambda: sum(1 for _ in itertools.islice(rows, spec["step"])), warm_up=1)


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=harness.ROUNDS)
    parser.add_argument("--kind", choices=KINDS, action="append", help="formats to read (default: all)")
    parser.add_argument("--quick", action="store_true", help="one format, a round: does it run?")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        contestant(json.loads(options.contestant))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name, derived_in(name):
        write(Path(name), 2_000 if options.quick else 200_000)
        for kind, way in itertools.product(options.kind or (["jsonl"] if options.quick else KINDS), WAYS):
            ask = {"path": f"{name}/a.{kind}", "way": way, "step": STEP // 100 if options.quick else STEP}
            specs = {
                who: ["-m", "benchmarks.reading", "--contestant", json.dumps({"who": who, **ask})]
                for who in ("ours", "theirs")
            }
            seconds = alternate(specs, 1 if options.quick else options.rounds)
            rows += compare(seconds, "ours", "theirs", f"{kind} {WAYS[way]}", "datasets")
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
