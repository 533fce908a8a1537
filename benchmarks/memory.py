"""Memory of a process that trains on more rows than it could hold: Parquet shards, streamed or memory-mapped, packed.

python -m benchmarks.memory [--rows 10000000] [--json FILE]

Shards are written to a temporary folder, then read once through a DataModule by a process for each way. Printed are its
own memory (anonymous pages) and all that is resident, which counts pages of mapped files that the system may take back
at any time, after each tenth of the rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TEXT = "the cat sat on a mat while one dog ran over red hills and some birds flew to warm seas"
WORDS = np.array(TEXT.split(" "))
MIB = 2**20


def write_shards(directory: Path, rows: int, shards: int, group: int = 50_000) -> int:
    """Parquet files of random sentences of 3 to 12 words; returns their bytes."""
    draw = np.random.default_rng(0)
    schema = pa.schema({"id": pa.string(), "text": pa.string()})
    for shard in range(shards):
        first, last = rows * shard // shards, rows * (shard + 1) // shards
        with pq.ParquetWriter(directory / f"train-{shard:05d}.parquet", schema) as writer:
            for start in range(first, last, group):
                size = min(group, last - start)
                lengths = draw.integers(3, 13, size)
                words = WORDS[draw.integers(0, len(WORDS), lengths.sum())].tolist()
                ends = np.cumsum(lengths).tolist()
                texts = [" ".join(words[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
                ids = [f"r{number}" for number in range(start, start + size)]
                writer.write_table(pa.table({"id": ids, "text": texts}, schema))
    pq.write_table(pa.table({"id": ["v"], "text": ["the cat sat"]}, schema), directory / "validation.parquet")
    return sum(path.stat().st_size for path in directory.glob("*.parquet"))


def memory() -> dict[str, float]:
    """Anonymous and all resident memory of this process, MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS")}


def read_all(directory: Path, rows: int, streaming: bool) -> list[dict[str, float]]:
    """Memory after each tenth of the rows of a pass through packed batches."""
    from lightning_nlp.data.causal_lm import CausalLMData
    from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig

    data = CausalLMData(
        str(directory), streaming=streaming, tokenizer=TokenizerConfig(kind="byte"), global_batch_size=32, seed=1
    )
    data.setup("fit")
    found, due = [], rows / 10
    for step, batch in enumerate(data.train_dataloader(), 1):
        assert batch["tokens"].shape == (32, 256)
        if (read := data.counts(step)["documents"]) >= due:
            found.append({"rows": read, **memory()})
            due += rows / 10
            if len(found) == 10:
                return found
    return found


def measure(directory: Path, rows: int, streaming: bool) -> tuple[list[dict[str, float]], float]:
    """:func:`read_all` in a process of its own, and its CPU-seconds."""
    command = [sys.executable, "-m", "benchmarks.memory", "--read", str(directory), "--rows", str(rows)]
    environment = {**os.environ, "LIGHTNING_NLP_DATA": str(directory / "derived"), "OMP_NUM_THREADS": "1"}
    how = ["--streaming"] if streaming else []
    done = subprocess.run([*command, *how], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["memory"], answer["seconds"]


def growth(found: list[dict[str, float]], name: str = "RssAnon") -> float:
    """MiB between the first tenth of the rows and the highest mark after it."""
    return max(each[name] for each in found[1:]) - found[0][name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--streaming", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read is not None:
        found = read_all(options.read, options.rows, options.streaming)
        print(json.dumps({"memory": found, "seconds": time.process_time()}))
        return
    table = []
    with tempfile.TemporaryDirectory() as name:
        size = write_shards(Path(name), options.rows, options.shards)
        print(f"{options.rows} rows in {options.shards} Parquet files of {size / MIB:.0f} MiB together")
        for streaming in (True, False):
            found, seconds = measure(Path(name), options.rows, streaming)
            way = "streamed" if streaming else "memory-mapped"
            print(f"\n{way} ({seconds:.0f} CPU-s)\n{'rows':>12} {'own MiB':>9} {'resident MiB':>13}")
            for each in found:
                print(f"{each['rows']:12.0f} {each['RssAnon']:9.0f} {each['VmRSS']:13.0f}")
            print(f"own memory grows by {growth(found):.0f} MiB after the first tenth of the rows")
            row = f"memory over {options.rows} rows, {way}"
            table.append({"row": row, "peer": "-", "ratio": growth(found), "floor": 64, "aim": 32, "unit": "MiB"})
    if options.json:
        options.json.write_text(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
