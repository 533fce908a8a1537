"""Batches on one CPU core beside what people use, and how much of them is padding.

python -m benchmarks.data [--json FILE] [--quick]

Shards: 10 million tokens in documents of log-normal length (median 400), batches of 8 x 256 in shuffled order, out of
the page cache: ours from `lightning-nlp prepare` through the DataModule, packed with labels, positions, segments and
ids; nanoGPT's `get_batch` (numpy.memmap, inputs and labels alone); litdata's TokensLoader with its own loader (inputs
alone). Streaming: text of Parquet files to packed batches of the same shape with one BPE of 8192 tokens, beside
`datasets` with map, grouping and a DataLoader. Padding: texts of log-normal length (median 60, sigma 0.8, at most 512),
batches of 32.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import harness
from benchmarks.harness import Row, alternate, compare, report

BLOCK, BATCH = 256, 8
TOKENS, STEPS = 10_000_000, 2048
"""Tokens in shards, and batches of a round."""
QUICK_TOKENS, QUICK_STEPS = 200_000, 64
TEXTS, TEXT_STEPS = 20_000, 100
"""Texts of the Parquet files, and batches of a round."""
QUICK_TEXTS, QUICK_TEXT_STEPS = 1_000, 3
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz     ", dtype=np.uint8)
Step = Callable[[], Any]


def texts(count: int, median: float, sigma: float, most: int, seed: int = 0) -> list[str]:
    """Random letters; lengths are log-normal."""
    draw = np.random.default_rng(seed)
    lengths = np.clip(draw.lognormal(np.log(median), sigma, count), 1, most).astype(int)
    letters = draw.choice(LETTERS, int(lengths.sum())).tobytes().decode()
    ends = np.cumsum(lengths)
    return [letters[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def write(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True)
    with (folder / "train.jsonl").open("w") as stream:
        stream.writelines(json.dumps({"text": text, "label": 0}) + "\n" for text in rows)
    return folder


def module(kind: str, path: Path, **settings: Any) -> Any:
    """A DataModule that is ready to train."""
    from lightning_nlp import registry
    from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig

    settings = {"tokenizer": TokenizerConfig(kind="byte"), "seed": 0, **settings}
    data = registry.load(registry.DATA, kind)(str(path), **settings)
    with contextlib.redirect_stderr(io.StringIO()):
        data.prepare_data()
        data.setup("fit")
    data.plan(1, 0)
    return data


# Shards -------------------------------------------------------------------------------------------------------


def make_shards(folder: Path, tokens: int) -> None:
    """The same tokens for all: ours, nanoGPT's file, litdata's chunks."""
    from lightning_nlp.cli.prepare import prepare

    rows = texts(tokens // 660, 400, 1.0, 100_000)  # of mean length 660
    data = module("CausalLMData", write(folder / "text", rows))
    data.prepared = str(folder / "shards")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        prepare(data, 1)
    ids = np.concatenate([np.fromfile(file, np.uint16) for file in sorted((folder / "shards").glob("*/train-*.bin"))])
    ids.tofile(folder / "tokens.bin")
    with contextlib.suppress(ImportError):
        make_chunks(folder / "chunks", ids)


def pieces(ids: np.ndarray) -> Iterator[Any]:
    """litdata wants tensors, of any length."""
    import torch

    for first in range(0, len(ids), 1 << 16):
        yield torch.from_numpy(ids[first : first + (1 << 16)].astype(np.int32))


def make_chunks(folder: Path, ids: np.ndarray) -> None:
    """What `litdata.optimize` writes, without its processes."""
    from litdata.streaming.cache import Cache
    from litdata.streaming.item_loader import TokensLoader

    folder.mkdir()
    cache = Cache(str(folder), chunk_size=(1 << 12) * (BLOCK + 1), item_loader=TokensLoader(block_size=BLOCK + 1))
    for number, piece in enumerate(pieces(ids)):
        cache[number] = piece
    cache.done()
    cache.merge()


def our_shards(folder: Path) -> Step:
    data = module(
        "CausalLMData", folder / "text", prepared=str(folder / "shards"), max_length=BLOCK, global_batch_size=BATCH
    )
    batches = iter(data.train_dataloader())
    return lambda: next(batches)


def nanogpt(folder: Path) -> Step:
    """`get_batch` of nanoGPT's train.py, on a CPU."""
    import torch

    def get_batch() -> Any:
        data = np.memmap(folder / "tokens.bin", dtype=np.uint16, mode="r")
        at = torch.randint(len(data) - BLOCK, (BATCH,))
        x = torch.stack([torch.from_numpy(data[i : i + BLOCK].astype(np.int64)) for i in at])
        y = torch.stack([torch.from_numpy(data[i + 1 : i + 1 + BLOCK].astype(np.int64)) for i in at])
        return x, y

    return get_batch


def litdata(folder: Path) -> Step:
    """StreamingDataset with TokensLoader and StreamingDataLoader, no workers."""
    if not (folder / "chunks").is_dir():
        harness.missing("litdata is not installed")
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming.item_loader import TokensLoader

    def endless() -> Iterator[Any]:
        while True:
            chunks = StreamingDataset(str(folder / "chunks"), item_loader=TokensLoader(BLOCK + 1), shuffle=True)
            yield from StreamingDataLoader(chunks, batch_size=BATCH, num_workers=0)

    batches = endless()
    return lambda: next(batches)


# Streaming ----------------------------------------------------------------------------------------------------


def make_parquet(folder: Path, count: int) -> None:
    """Texts of words in two files, and a tokenizer trained on them."""
    import pyarrow
    import pyarrow.parquet

    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig

    draw = np.random.default_rng(1)
    words = np.array(texts(8000, 6, 0.4, 14, seed=2))
    lengths = np.clip(draw.lognormal(np.log(120), 0.8, count), 1, 4000).astype(int)
    ranks = np.minimum(draw.zipf(1.3, int(lengths.sum())), len(words)) - 1
    ends = np.cumsum(lengths)
    rows = [" ".join(words[ranks[end - size : end]]) for end, size in zip(ends, lengths, strict=True)]
    (folder / "parquet").mkdir()
    for number in range(2):
        table = pyarrow.table({"text": rows[number::2]})
        pyarrow.parquet.write_table(table, folder / f"parquet/train-{number}.parquet", row_group_size=1000)
    Tokenizer.train(rows[:3000], TokenizerConfig(vocab_size=8192)).save(folder / "tokenizer.json")


def our_stream(folder: Path) -> Step:
    from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig

    data = module(
        "CausalLMData",
        folder / "parquet",
        streaming=True,
        validation_fraction=0.0,
        tokenizer=TokenizerConfig(path=str(folder / "tokenizer.json")),
        max_length=BLOCK,
        global_batch_size=BATCH,
    )
    batches = iter(data.train_dataloader())
    return lambda: next(batches)


def datasets_stream(folder: Path) -> Step:
    """Tokenise with map, join and cut with map, batch with a DataLoader: the recipe of transformers' run_clm."""
    import datasets
    from tokenizers import Tokenizer
    from torch.utils.data import DataLoader

    datasets.disable_progress_bars()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos, eos = tokenizer.token_to_id("<bos>"), tokenizer.token_to_id("<eos>")

    def tokenise(rows: Any) -> Any:
        found = tokenizer.encode_batch_fast(rows["text"], add_special_tokens=False)
        return {"input_ids": [[bos, *encoding.ids, eos] for encoding in found]}

    def group(rows: Any) -> Any:
        joined = [token for ids in rows["input_ids"] for token in ids]
        blocks = [joined[at : at + BLOCK] for at in range(0, len(joined) - BLOCK + 1, BLOCK)]
        return {"input_ids": blocks, "labels": [list(block) for block in blocks]}

    files = sorted(map(str, (folder / "parquet").glob("*.parquet")))

    def endless() -> Iterator[Any]:
        while True:
            rows = datasets.load_dataset("parquet", data_files=files, streaming=True, split="train")
            rows = rows.map(tokenise, batched=True, remove_columns=["text"]).map(group, batched=True)
            yield from DataLoader(rows.with_format("torch"), batch_size=BATCH, drop_last=True)

    batches = endless()
    return lambda: next(batches)


# Padding ------------------------------------------------------------------------------------------------------


def padding(count: int, folder: Path) -> list[Row]:
    """Share of positions that are padding, over an epoch. Rows packed end to end have none."""
    rows = texts(count, 60, 0.8, 512, seed=3)
    path = write(folder / "padding", rows)
    lengths = np.array([len(row) + 2 for row in rows])  # with both special tokens
    random = lengths[np.random.default_rng(0).permutation(count)][: count // 32 * 32].reshape(-1, 32)
    longest = 1 - random.sum() / (random.max(axis=1) * 32).sum()
    kinds: dict[str, tuple[str, dict[str, Any]]] = {
        "buckets": ("TextClassificationData", {"max_length": 514, "global_batch_size": 32}),
        "first fit": ("CausalLMData", {"max_length": 514, "packing": "first_fit", "global_batch_size": 32}),
    }
    found = []
    for name, (kind, settings) in kinds.items():
        data = module(kind, path, validation_fraction=0.0, **settings)
        padded = positions = 0
        for number, batch in enumerate(data.train_dataloader()):
            if number == count // 32:
                break
            segments = batch["segments"]
            padded, positions = padded + int((segments == 0).sum()), positions + segments.numel()
        share = padded / positions
        floor, aim = (0.08, 0.03) if name == "buckets" else (0.01, 0.01)
        note = f"batch-longest: {longest:.3f}"
        row = Row(f"padding, {name}", "batch-longest", share, share, share, floor, aim, "share", note, smaller=True)
        found.append(row)
    return found


CONTESTANTS: dict[str, Callable[[Path], Step]] = {
    "ours": our_shards,
    "nanoGPT": nanogpt,
    "litdata": litdata,
    "our stream": our_stream,
    "datasets": datasets_stream,
}


def contestant(name: str, folder: Path, steps: int) -> None:
    import torch

    torch.set_num_threads(1)
    harness.repeat(CONTESTANTS[name](folder), warm_up=steps)


def main(arguments: list[str] | None = None) -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--rounds", type=int, default=harness.ROUNDS)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, three rounds: does it run?")
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.contestant:
        contestant(options.contestant, options.folder, options.steps)
    rounds = 3 if options.quick else options.rounds
    tokens, steps = (QUICK_TOKENS, QUICK_STEPS) if options.quick else (TOKENS, STEPS)
    count, text_steps = (QUICK_TEXTS, QUICK_TEXT_STEPS) if options.quick else (TEXTS, TEXT_STEPS)
    shape = f"B{BATCH} T{BLOCK}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["LIGHTNING_NLP_DATA"] = str(folder / "data")
        os.environ["HF_DATASETS_CACHE"] = str(folder / "datasets")
        make_shards(folder, tokens)
        make_parquet(folder, count)

        def race(names: list[str], repeats: int) -> dict[str, list[float]]:
            shared = ["-m", "benchmarks.data", "--folder", name, "--steps", str(repeats)]
            return alternate({each: [*shared, "--contestant", each] for each in names}, rounds, repeats)

        seconds = race(["ours", "nanoGPT", "litdata"], steps)
        label = f"batches from shards {shape}"
        rows = compare(seconds, "ours", "nanoGPT", label, "nanoGPT get_batch", floor=5.0, aim=15.0)
        rows += compare(seconds, "ours", "litdata", label, "litdata TokensLoader", floor=3.0, aim=8.0)
        seconds = race(["our stream", "datasets"], text_steps)
        label = f"text to packed tensors, streaming Parquet, BPE-8k {shape}"
        rows += compare(seconds, "our stream", "datasets", label, "datasets + DataLoader", floor=3.0, aim=5.0)
        rows += padding(count, folder)
    report(rows, options.json)
    return rows


if __name__ == "__main__":
    main()
