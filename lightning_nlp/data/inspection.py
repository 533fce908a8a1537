"""What a model will see, in numbers and in a few rows: of any DataModule, through examples and batches alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor

from lightning_nlp.data.collate import Batch
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import IGNORED, Example
from lightning_nlp.data.order.documents import with_keys
from lightning_nlp.data.order.joined import rows_in_turn
from lightning_nlp.data.permutation import permute
from lightning_nlp.data.sources.bad_rows import FILTERED, BadRow, examine, located
from lightning_nlp.data.sources.source import Source

SAMPLE_KEY = (20260102,)
"""Fixed: the same documents are looked at each time."""
CHUNK = 32
"""Rows read together."""
ENOUGH_BYTES = 8_000_000
"""Text after which a sample is large enough, however few documents it holds."""
PLAIN = {"tokens", "labels", "positions", "segments"}
"""Fields of a row that every batch has; others of its shape are further fields, such as ``prefix_mask``."""


@dataclass
class Documents:
    """A sample of the documents of a split.

    Attributes:
        rows: looked at.
        complete: these are all rows there are.
        bytes: UTF-8, of their texts.
        words: separated by spaces.
        tokens: of the texts, without special ones.
        unknown: tokens among them that stand for what the tokenizer does not know.
        used: different tokens among them.
        lengths: tokens of each example as a model gets it, before rows are filled with several or cut in pieces.
        sources: the same of what an encoder reads; empty where there is none.
        dropped: documents that give nothing to learn from.
        truncated: examples of which tokens were cut off.
        several: documents that give more than one example.
        bad: bad rows by kind, filtered ones among them.
        faults: the first bad row of each kind, in words.
        ids: of the first rows.
    """

    rows: int = 0
    complete: bool = False
    bytes: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    used: set[int] = field(default_factory=set)
    lengths: list[int] = field(default_factory=list)
    sources: list[int] = field(default_factory=list)
    dropped: int = 0
    truncated: int = 0
    several: int = 0
    bad: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)


def sample(source: Source, count: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of a split drawn anywhere, a chunk at a time; of a stream, the first ones. Never one twice."""
    if source.num_rows is None:
        left = islice(rows_in_turn(source), count)
        while chunk := list(islice(left, CHUNK)):
            yield chunk
        return
    for start in range(0, min(count, source.num_rows), CHUNK):
        places = np.arange(start, min(start + CHUNK, count, source.num_rows))
        yield source.read(permute(places, source.num_rows, SAMPLE_KEY))


def measure_documents(data: TextDataModule, split: str, count: int) -> Documents:
    """Look at about ``count`` documents of a split, fewer where they are long."""
    source, tokenizer, found = data.split(split), data.tokenizer, Documents()
    assert tokenizer is not None
    for rows in sample(source, count):
        with_keys(rows, found.rows)
        found.rows += len(rows)
        good = []
        for row, example in zip(rows, examine(data.checked_prepare, rows, source), strict=True):
            if isinstance(example, BadRow):
                found.bad[example.kind] += 1
                if example.kind != FILTERED:
                    found.faults.setdefault(example.kind, located(source, row, example))
                continue
            good.append(row)
            note(found, example)
        found.ids += [row["id"] for row in good[: 5 - len(found.ids)]]
        texts = [text for row in good for text in data.texts_of(row)]
        found.bytes += sum(len(text.encode()) for text in texts)
        found.words += sum(len(text.split()) for text in texts)
        for ids in tokenizer.encode_batch(texts):
            found.tokens += len(ids)
            found.unknown += 0 if tokenizer.unk_id is None else int(np.count_nonzero(ids == tokenizer.unk_id))
            found.used.update(np.unique(ids).tolist())
        if found.bytes >= ENOUGH_BYTES:
            break
    found.complete = source.num_rows is not None and found.rows == source.num_rows
    return found


def note(found: Documents, example: Example | None) -> None:
    """Count what a document gives."""
    if example is None:
        found.dropped += 1
        return
    found.several += len(example.parts) > 1
    for part in example.parts:
        tokens, source = part.lengths
        found.lengths.append(tokens)
        found.truncated += part.truncated
        if part.source is not None:
            found.sources.append(source)


@dataclass
class Batches:
    """The first micro-batches of training, added up.

    Attributes:
        count: batches.
        steps: optimizer steps that they are.
        rows: that hold anything.
        documents: pieces of documents in them.
        widths: least and greatest T.
        positions: of rows and of sources, padding included.
        padding: of these.
        tokens: that are no padding, of rows alone.
        supervised: of these, tokens with a label.
        labels: rows by class.
        numbers: labels of rows that are numbers to predict.
        counts: what became of the documents that were read for them.
    """

    count: int = 0
    steps: int = 0
    rows: int = 0
    documents: int = 0
    widths: tuple[int, int] = (0, 0)
    positions: int = 0
    padding: int = 0
    tokens: int = 0
    supervised: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    numbers: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, batch: Batch, names: list[str] | None) -> None:
        """Another batch."""
        segments, labels = batch["segments"], batch["labels"]
        width = segments.shape[1]
        self.widths = (min(self.widths[0], width), max(self.widths[1], width)) if self.count else (width, width)
        self.count += 1
        self.rows += int((segments > 0).any(1).sum())
        self.documents += int(segments.amax(1).sum())
        real = int((segments > 0).sum())
        self.tokens += real
        self.positions += segments.numel()
        self.padding += segments.numel() - real
        if (source := batch.get("source_segments")) is not None:
            self.positions += source.numel()
            self.padding += int((source == 0).sum())
        if per_token(batch):
            self.supervised += int((labels != IGNORED).sum())
            return
        real_rows = [row for row, ids in enumerate(batch["example_ids"]) if ids]
        if is_number(labels):
            self.numbers += labels[real_rows].tolist()
        else:
            for row in real_rows:
                self.labels.update(names_of(labels[row], names) or ["none"])


def per_token(batch: Batch) -> bool:
    """Every position has a label, or none of its own."""
    return batch["labels"].shape == batch["tokens"].shape and not batch["labels"].is_floating_point()


def is_number(labels: Tensor) -> bool:
    """A row's label is a number to predict."""
    return labels.dim() == 1 and labels.is_floating_point()


def names_of(label: Tensor, names: list[str] | None) -> list[str]:
    """The classes of a row's label: a class number, or a number a class, of which several may hold."""
    if label.dim():
        return [name_of(number, names) for number in label.nonzero().flatten().tolist()]
    return [name_of(int(label), names)]


def name_of(number: int, names: list[str] | None) -> str:
    return str(names[number]) if names is not None and 0 <= number < len(names) else str(number)


@dataclass
class Shown:
    """A row of a batch as it is, without its padding.

    Attributes:
        ids: of its documents.
        tokens, labels, segments: ``[n]``; labels are None where the row has one of its own.
        label: that one, by name.
        source: what an encoder reads; None without one.
        extras: further fields, ``[n]``.
        padding: positions left out.
    """

    ids: list[str]
    tokens: list[int]
    labels: list[int] | None
    segments: list[int]
    label: str | None
    source: list[int] | None
    extras: dict[str, list[int]]
    padding: int


def rows_of(batch: Batch, names: list[str] | None) -> Iterator[Shown]:
    """The rows of a batch that hold anything."""
    shape = batch["tokens"].shape
    further = [
        name
        for name, value in batch.items()
        if isinstance(value, Tensor) and value.shape == shape and name not in PLAIN and not name.startswith("source_")
    ]
    for row, ids in enumerate(batch["example_ids"]):
        real = batch["segments"][row] > 0
        if not ids or not bool(real.any()):
            continue
        source = None
        if "source_tokens" in batch:
            source = batch["source_tokens"][row][batch["source_segments"][row] > 0].tolist()
        label = None
        if not per_token(batch):
            own = batch["labels"][row]
            label = f"{float(own):g}" if is_number(batch["labels"]) else ", ".join(names_of(own, names))
        yield Shown(
            ids=ids,
            tokens=batch["tokens"][row][real].tolist(),
            labels=batch["labels"][row][real].tolist() if label is None else None,
            segments=batch["segments"][row][real].tolist(),
            label=label,
            source=source,
            extras={name: batch[name][row][real].long().tolist() for name in further},  # type: ignore[literal-required]
            padding=int((~real).sum()),
        )


@dataclass
class Inspection:
    """Everything that was found.

    Attributes:
        data: whose.
        splits: a sample of each split.
        batches: the first ones of training.
        rows: a few rows of theirs.
    """

    data: TextDataModule
    splits: dict[str, Documents]
    batches: Batches
    rows: list[Shown]


def inspect(data: TextDataModule, *, documents: int, batches: int, rows: int) -> Inspection:
    """Look at a DataModule as one rank would train on it.

    Args:
        data: set up by nobody yet.
        documents: looked at in each split, about.
        batches: micro-batches that are added up.
        rows: of them that are kept to be shown, from as many batches as possible.

    Raises:
        ConfigError, DataError: as training would.
    """
    data.prepared, data.workers = "none", 0  # texts are looked at, by this process
    data.prepare_data()
    data.setup("fit")
    each = data.plan(1, 0)
    splits = {split: measure_documents(data, split, documents) for split in data.splits}
    names, found, kept = data.facts().get("labels"), Batches(), list[Shown]()
    try:
        for number, batch in enumerate(islice(data.train_dataloader(), batches)):
            found.add(batch, names)
            left = -(-(rows - len(kept)) // (batches - number))
            kept += islice(rows_of(batch, names), left)
        found.steps = -(-found.count // each)
        found.counts = data.counts(found.steps)
    finally:
        data.teardown("fit")
    return Inspection(data, splits, found, kept)
