"""The report of `data inspect` for people: coloured on a terminal, plain elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

WIDTH = 100
"""Columns where there is no terminal."""
BAR = 40
"""Columns of the longest bar."""
NO_LOSS = "·"
SEGMENTS = ("cyan", "yellow", "green", "magenta")
"""Colours of the documents of a row, in turn."""
LOSS, FADED, NAME = "bold", "dim", "bold blue"
CLASSES = 12
"""Classes shown, at most."""


def show(report: dict[str, Any], tokens: int) -> None:
    """Print a report.

    Args:
        report: as :func:`lightning_nlp.cli.data_inspect.report` makes it.
        tokens: of a row, at most.
    """
    terminal = sys.stdout.isatty()
    console = Console(highlight=False, soft_wrap=True, width=None if terminal else WIDTH, no_color=not terminal)
    for line in [*head(report), *lengths(report["documents"]), *batches(report["batches"])]:
        console.print(line)
    for number, row in enumerate(report["rows"]):
        for line in view(row, number, tokens, min(console.width, 160)):
            console.print(line)


def titled(title: str, *facts: str) -> Text:
    """``title         fact, fact``."""
    return Text.assemble((f"{title:<14}", NAME), ", ".join(fact for fact in facts if fact))


def percent(share: float) -> str:
    """``12.3 %``; small shares are not rounded away."""
    return f"{100 * share:.1f} %" if not 0 < share < 0.0005 else "below 0.1 %"


def size(count: float | None, unit: str) -> str:
    """``1.23 MB``."""
    if count is None:
        return f"unknown {unit}"
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {letter}{unit}"
    return f"{count:g} {unit}"


def head(report: dict[str, Any]) -> Iterable[Text]:
    """Where the data comes from, and what the tokenizer makes of it."""
    tokenizer, documents = report["tokenizer"], report["documents"]
    yield titled("data", report["data"])
    for name, split in report["splits"].items():
        rows = "a stream, no known number of rows" if split["rows"] is None else f"{split['rows']} rows"
        about = "" if split["exact"] or split["bytes"] is None else "about "
        amount = "" if split["bytes"] is None else f"{about}{size(split['bytes'], 'B')} of text"
        ids = f"ids such as {' '.join(split['ids'][:3])}" if split["ids"] else ""
        yield titled(f"  {name}", rows, amount, ids)
    unknown = documents["unknown"]
    yield titled(
        "tokenizer",
        f"{tokenizer['model']}, {tokenizer['vocab_size']} tokens, hash {tokenizer['hash'][:12]}",
    )
    yield titled(
        "",
        f"{documents['bytes_per_token']:.2f} bytes a token",
        f"{documents['tokens_per_byte']:.3f} tokens a byte",
        f"{documents['tokens_per_word']:.2f} a word",
    )
    yield titled(
        "",
        "no text is unknown to it" if unknown is None else f"{percent(unknown)} unknown",
        f"{percent(documents['vocabulary_used'])} of the vocabulary used",
    )


def lengths(documents: dict[str, Any]) -> Iterable[Text]:
    """What the documents are like."""
    which = "all" if documents["complete"] else "a sample of"
    yield titled("documents", f"{which} {documents['sampled']} rows of train", f"{documents['examples']} examples")
    fates = {
        "give nothing to learn from": documents["dropped"],
        "cut": documents["truncated"],
        "give several examples": documents["several_examples"],
    }
    yield titled("", *(f"{percent(share)} {what}" for what, share in fates.items()))
    for kind, share in documents["bad"].items():
        yield titled("  bad rows" if kind != "filtered" else "  filtered", f"{percent(share)} {kind}")
        if kind in documents["faults"]:
            yield titled("", f"first: {documents['faults'][kind]}")
    for name, key in (("tokens", ""), ("source", "source_")):
        spread = documents[f"{key}tokens_per_example"]
        if spread is None:
            continue
        shown = (f"{what} {spread[what]:.0f}" for what in ("min", "median", "p95", "max"))
        yield titled(f"  {name}", "an example: " + ", ".join(shown), f"mean {spread['mean']:.1f}")
        yield from bars(documents[f"{key}histogram"])


def bars(histogram: list[dict[str, int]]) -> Iterable[Text]:
    """A bar a range."""
    total, most = sum(bin["count"] for bin in histogram), max((bin["count"] for bin in histogram), default=0)
    names = [str(bin["from"]) if bin["from"] == bin["to"] else f"{bin['from']}-{bin['to']}" for bin in histogram]
    wide = max(map(len, names), default=0)
    for name, bin in zip(names, histogram, strict=True):
        count = bin["count"]
        bar = "█" * max(round(BAR * count / most), 1) if count else ""
        yield Text.assemble(f"    {name:>{wide}} ", (f"{bar:<{BAR}}", "cyan"), f" {percent(count / total):>11}")


def batches(found: dict[str, Any]) -> Iterable[Text]:
    """What the first batches are like."""
    low, high = found["width"]
    width = f"{low}" if low == high else f"{low} to {high}"
    yield titled(
        "batches",
        f"the first {found['count']} ({found['steps']} optimizer steps)",
        f"{found['rows']} rows of {width} tokens",
        f"{found['documents'] / max(found['rows'], 1):.2f} documents a row",
    )
    whole = bool(found["labels"] or found["numbers"])
    learnt = "a label a row" if whole else f"{percent(found['supervised'])} of the tokens have a label"
    yield titled("", f"{percent(found['padding'])} padding", learnt)
    if found["read"]:
        yield titled("", f"read for them: {found['read']}")
    if found["numbers"]:
        shares = (f"{what} {found['numbers'][what]:g}" for what in ("min", "median", "p95", "max"))
        yield titled("", "labels: " + ", ".join(shares), f"mean {found['numbers']['mean']:g}")
    shown = list(found["labels"].items())
    for name, count in shown[:CLASSES]:
        yield titled("", f"  {percent(count / found['rows'])} of the rows: {name}")
    if len(shown) > CLASSES:
        yield titled("", f"  and {len(shown) - CLASSES} more classes")


def view(row: dict[str, Any], number: int, most: int, width: int) -> Iterable[Text]:
    """A row: tokens over their labels, documents told apart."""
    ids = ", ".join(row["ids"][:4]) + (f" and {len(row['ids']) - 4} more" if len(row["ids"]) > 4 else "")
    labelled = "" if row["labels"] is None else f"{sum(label is not None for label in row['labels'])} with a label"
    yield Text("")
    yield titled(f"row {number}", f"{len(row['tokens'])} tokens", labelled, f"{row['padding']} padding", f"from {ids}")
    if row["label"] is not None:
        yield titled("  label", row["label"] or "none")
    if row["source"] is not None:
        yield from columns({"source": row["source"]}, [1] * len(row["source"]), most, width)
    lines = {"input": row["tokens"]}
    if row["labels"] is not None:
        lines["label"] = [NO_LOSS if label is None else label for label in row["labels"]]
    for name, values in row["extras"].items():
        lines[name.removesuffix("_mask").removeprefix("token_")] = [
            str(value) if value else NO_LOSS for value in values
        ]
    yield from columns(lines, row["segments"], most, width)


def columns(lines: dict[str, list[str]], segments: list[int], most: int, width: int) -> Iterable[Text]:
    """Lines of cells one under the other, wrapped together; a document begins with a bar."""
    count = len(segments)
    cells = [
        ("│" if place and segments[place] != segments[place - 1] else " ", [values[place] for values in lines.values()])
        for place in range(min(count, most))
    ]
    start = 0
    while start < len(cells):
        stop, used = start, 12
        while stop < len(cells) and (stop == start or used + wide(cells[stop][1]) <= width):
            used += wide(cells[stop][1])
            stop += 1
        for line, name in enumerate(lines):
            text = Text(f"  {name:<9}", style="")
            for place in range(start, stop):
                mark, values = cells[place]
                value = values[line]
                style = FADED if value == NO_LOSS else SEGMENTS[segments[place] % len(SEGMENTS)]
                if line and value != NO_LOSS:
                    style = f"{LOSS} {style}"
                text.append(mark, FADED)
                text.append(value + " " * (wide(values) - 1 - cell_len(value)), style)
            text.rstrip()
            yield text
        if len(lines) > 1 and stop < len(cells):
            yield Text("")
        start = stop
    if count > most:
        yield Text(f"  ... {count - most} more tokens", FADED)


def wide(values: list[str]) -> int:
    """Columns of a cell and the mark before it."""
    return max(map(cell_len, values)) + 1
