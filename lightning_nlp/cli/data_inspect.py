"""`lightning-nlp data inspect -c CONFIG`: what a model will see, before it sees it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nlp.errors import ConfigError

if TYPE_CHECKING:
    from lightning_nlp.data.inspection import Documents, Inspection
    from lightning_nlp.data.module import TextDataModule

BARS = 12
"""Bars of a histogram, about."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb; what is not listed is as for `fit`."""
    parser.add_argument("-c", "--config", action="append", default=[], help="as for fit; may be repeated")
    parser.add_argument("--run", help="a run: its configuration, tokenizer and labels")
    parser.add_argument("--examples", type=int, default=3, help="rows to show (default: 3)")
    parser.add_argument("--tokens", type=int, default=96, help="tokens of a row to show (default: 96)")
    parser.add_argument("--batches", type=int, default=20, help="batches to measure (default: 20)")
    parser.add_argument("--documents", type=int, default=1000, help="documents of a split to measure (default: 1000)")
    parser.add_argument("--json", help="file for the same as JSON; - prints it instead")


def main(options: argparse.Namespace, rest: list[str]) -> int:
    """Inspect, and print."""
    for name, least in {"examples": 0, "tokens": 1, "batches": 1, "documents": 1}.items():
        if getattr(options, name) < least:
            raise ConfigError(f"--{name} must be at least {least}, not {getattr(options, name)}")
    if not options.config and options.run is None:
        raise ConfigError("data inspect needs -c CONFIG or --run RUN")
    from lightning_nlp.cli.quiet import quieten

    quieten()
    from lightning_nlp.data.inspection import inspect

    data = opened(options, rest)
    found = inspect(data, documents=options.documents, batches=options.batches, rows=options.examples)
    described = report(found)
    if options.json == "-":
        print(json.dumps(described, indent=2, ensure_ascii=False))
        return 0
    from lightning_nlp.cli.data_view import show

    show(described, options.tokens)
    if options.json is not None:
        from lightning_nlp.run.files import write_json

        try:
            write_json(Path(options.json), described)
        except OSError as error:
            raise ConfigError(f"--json '{options.json}' cannot be written: {error.strerror}") from error
    return 0


def opened(options: argparse.Namespace, rest: list[str]) -> TextDataModule:
    """The DataModule of a configuration or of a run."""
    from lightning_nlp.cli.data_of_config import data_of
    from lightning_nlp.cli.parser import find_mistake

    args = [part for file in options.config for part in ("-c", file)] + rest
    if options.run is not None:
        args += ["--run", options.run]
    try:
        data = data_of(args)
    except ConfigError:
        raise
    except Exception as error:  # the parser wraps what a constructor raises
        if (mistake := find_mistake(error)) is None:
            raise
        raise mistake from error
    if options.run is not None and (kept := Path(options.run) / "tokenizer.json").is_file():
        data.initial_tokenizer = kept
    return data


# The report -------------------------------------------------------------------------------------------------------


def report(found: Inspection) -> dict[str, Any]:
    """Everything as plain values."""
    data, batches = found.data, found.batches
    tokenizer = data.tokenizer
    assert tokenizer is not None
    train = found.splits.get("train") or next(iter(found.splits.values()))
    from lightning_nlp.data.summary import in_words

    return {
        "data": type(data).__name__,
        "task": data.task,
        "tokenizer": {
            "model": type(tokenizer.backend.model).__name__,
            "vocab_size": tokenizer.vocab_size,
            "hash": tokenizer.hash,
        },
        "splits": {name: split(data, name, part) for name, part in found.splits.items()},
        "documents": documents(train, tokenizer.vocab_size, tokenizer.unk_id is not None),
        "batches": {
            "count": batches.count,
            "steps": batches.steps,
            "rows": batches.rows,
            "documents": batches.documents,
            "width": list(batches.widths),
            "positions": batches.positions,
            "padding": share(batches.padding, batches.positions),
            "supervised": share(batches.supervised, batches.tokens),
            "labels": dict(batches.labels.most_common()),
            "numbers": spread(batches.numbers) if batches.numbers else None,
            "read": in_words(batches.counts, data.lengths) if batches.counts else "",
            "counts": {name: number for name, number in batches.counts.items() if number},
        },
        "rows": [row(data, each) for each in found.rows],
    }


def share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def split(data: TextDataModule, name: str, part: Documents) -> dict[str, Any]:
    """How large a split is: bytes are reckoned from the sample where it is not all there is."""
    rows = data.split(name).num_rows
    size: int | None = part.bytes
    if not part.complete:
        size = None if rows is None or not part.rows else round(part.bytes / part.rows * rows)
    return {"rows": rows, "bytes": size, "exact": part.complete, "ids": part.ids}


def documents(part: Documents, vocabulary: int, knows_unknown: bool) -> dict[str, Any]:
    """What the sample says of the documents."""
    return {
        "sampled": part.rows,
        "complete": part.complete,
        "examples": len(part.lengths),
        "tokens_per_example": spread(part.lengths),
        "source_tokens_per_example": spread(part.sources) if part.sources else None,
        "bytes_per_token": share(part.bytes, part.tokens),
        "tokens_per_byte": share(part.tokens, part.bytes),
        "tokens_per_word": share(part.tokens, part.words),
        "unknown": share(part.unknown, part.tokens) if knows_unknown else None,
        "vocabulary_used": share(len(part.used), vocabulary),
        "dropped": share(part.dropped, part.rows),
        "truncated": share(part.truncated, len(part.lengths)),
        "several_examples": share(part.several, part.rows),
        "bad": {kind: share(number, part.rows) for kind, number in sorted(part.bad.items())},
        "faults": part.faults,
        "histogram": histogram(part.lengths),
        "source_histogram": histogram(part.sources) if part.sources else None,
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Least, median, 95th percentile, greatest, mean."""
    import numpy as np

    if not values:
        return dict.fromkeys(("min", "median", "p95", "max", "mean"), 0)
    low, middle, high, top = np.percentile(values, [0, 50, 95, 100], method="inverted_cdf").tolist()
    return {"min": low, "median": middle, "p95": high, "max": top, "mean": float(np.mean(values))}


def histogram(values: list[int]) -> list[dict[str, int]]:
    """Counts in steps of one width, or, where lengths differ much, in steps that double: ``{from, to, count}``."""
    if not values:
        return []
    import numpy as np

    low, high = min(values), max(values)
    if high > 8 * max(float(np.median(values)), 1) or high > 64 * max(low, 1):
        edges = [0, 1]
        while edges[-1] <= high:
            edges.append(2 * edges[-1])
    else:
        width = next(size for size in steps() if (high - low) // size < BARS)
        edges = list(range(low - low % width, high + width + 1, width))
    counts, _ = np.histogram(values, bins=edges)
    found = [
        {"from": start, "to": stop - 1, "count": int(count)}
        for start, stop, count in zip(edges, edges[1:], counts, strict=False)
    ]
    while found and not found[0]["count"]:
        found.pop(0)
    while found and not found[-1]["count"]:
        found.pop()
    return found


def steps() -> Any:
    """1, 2, 5, 10, 20, 50 ..."""
    size = 1
    while True:
        yield from (size, 2 * size, 5 * size)
        size *= 10


def row(data: TextDataModule, shown: Any) -> dict[str, Any]:
    """A row, with its tokens as a person can read them."""
    tokenizer = data.tokenizer
    assert tokenizer is not None
    from lightning_nlp.data.objectives import IGNORED

    read = tokenizer.shown
    return {
        "ids": shown.ids,
        "label": shown.label,
        "source": None if shown.source is None else [read(token) for token in shown.source],
        "tokens": [read(token) for token in shown.tokens],
        "labels": None
        if shown.labels is None
        else [None if token == IGNORED else read(token) for token in shown.labels],
        "segments": shown.segments,
        "extras": shown.extras,
        "padding": shown.padding,
        "token_ids": shown.tokens,
        "label_ids": shown.labels,
        "source_ids": shown.source,
    }
