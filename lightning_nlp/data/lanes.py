"""Lanes: independent, deterministic streams of rows, from which global batches are drawn in turn.

Lane ``l`` of ``L`` reads blocks ``l, l + L, l + 2 L, ...`` of the endless sequence and packs or buckets them alone. Its
state is a few integers; the same rows follow after :meth:`restore`, bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from lightning_nlp.data.bad_rows import FILTERED, BadRow, announce, bad_of, examine, located, policy_of
from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order import BlockOrder, BlockReader
from lightning_nlp.data.permutation import generator
from lightning_nlp.errors import DataError

Prepare = Callable[[list[dict[str, Any]]], list[Example | None]]
READ_AHEAD = 64
"""Documents read and tokenised at once, at most; has no influence on what comes out."""
READ_AHEAD_TOKENS = 16384
"""Of long documents fewer are read at once: every lane holds its own, and all of them wait for the first batch."""
PATIENCE = 100
"""Epochs' worth of useless documents after which a lane gives up, although other lanes fare better."""
BUCKET_STREAM = 7
"""Keeps the random numbers of bucket order apart from those of block order."""


@dataclass(slots=True)
class Row:
    """One row of a batch: int32 arrays of equal length, and where they come from."""

    tokens: np.ndarray
    labels: Any
    positions: np.ndarray
    segments: np.ndarray
    ids: list[str]
    bytes: int
    number: int = -1
    lane: int = -1
    continues: bool = False
    source: np.ndarray | None = None
    place: int = -1
    cut: int = 0
    text: str = ""
    reference: str | None = None


@dataclass(slots=True)
class Counts:
    """What happened to documents on their way; part of the state."""

    documents: int = 0
    dropped: int = 0
    truncated: int = 0
    tokens_cut: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Bad rows by kind, and filtered ones; not among those dropped."""

    @property
    def rows(self) -> int:
        """Rows read."""
        return self.documents + self.dropped + sum(self.skipped.values())


def with_keys(rows: list[dict[str, Any]], first: int, *visit: int) -> list[dict[str, Any]]:
    """Give every row a ``key``: the integers that random parts of its example are a function of.

    No two visits of rows have the same, whoever prepares them: (seed, block, place) in training, where blocks are
    numbered on through the epochs, and the number of the row in evaluation, whose random parts never change.
    """
    for place, row in enumerate(rows, first):
        row["key"] = (*visit, place)
    return rows


class Documents:
    """The examples of one lane, one after the other, with a position that can be set."""

    def __init__(self, order: BlockOrder, lane: int, lanes: int, prepare: Prepare) -> None:
        self.order, self.lane, self.lanes, self.prepare = order, lane, lanes, prepare
        self.block, self.document = lane, 0
        self._reader: BlockReader | None = None
        self._ahead: list[Example | BadRow | None] = []
        self._ahead_rows: list[dict[str, Any]] = []
        self._ahead_start = 0
        self._ahead_count = 1
        self.counts = Counts()
        self._fruitless = 0
        self._hopeful = False
        order.claim(lane, lane)

    def peek(self) -> Example | None:
        """The example at the current position; None when the document gave none."""
        while True:
            if self._reader is None:
                self._reader = self.order.reader(self.block)
                self._ahead, self._ahead_start = [], 0
            if self.document < len(self._reader):
                break
            self.block, self.document, self._reader = self.block + self.lanes, 0, None
        place = self.document - self._ahead_start
        if not 0 <= place < len(self._ahead):
            stop = min(self.document + self._ahead_count, len(self._reader))
            rows = with_keys(self._reader.read(self.document, stop), self.document, self.order.seed, self.block)
            self._ahead, self._ahead_start = examine(self.prepare, rows, self.order.source), self.document
            self._ahead_rows = rows
            tokens = sum(example.full_length for example in self._ahead if isinstance(example, Example))
            enough = READ_AHEAD_TOKENS * len(self._ahead) // max(tokens, 1)
            self._ahead_count = max(min(enough, 4 * self._ahead_count, READ_AHEAD), 1)
            place = 0
        found = self._ahead[place]
        return None if isinstance(found, BadRow) else found

    def advance(self) -> None:
        """Done with the current document."""
        self.document += 1

    def next(self) -> Example:
        """The next example, skipping documents that give none.

        Raises:
            DataError: a whole pass over the data gave none.
        """
        while True:
            example = self.peek()
            self.advance()
            if example is not None:
                self.count(example)
                return example
            self.skipped()

    def count(self, example: Example) -> None:
        """Note a document that is used."""
        self._fruitless = 0
        self.counts.documents += 1
        if example.truncated:
            self.counts.truncated += 1
            self.counts.tokens_cut += example.full_length - sum(example.lengths)

    def skipped(self) -> None:
        """Note the document passed last, which gives nothing, and stop when there is none that does.

        Raises:
            DataError: no document gives anything, or never one of this lane; or it is bad, and not to be skipped.
        """
        place = self.document - 1 - self._ahead_start
        if isinstance(bad := self._ahead[place], BadRow):
            self._skip(bad, self._ahead_rows[place])
        else:
            self.counts.dropped += 1
        self._fruitless += 1
        rows, name = self.order.epoch_rows, self.order.source.name
        if rows is None:
            return
        if self._fruitless >= rows and not self._hopeful:
            self._hopeful = self._anything()
            if not self._hopeful:
                raise DataError(f"no document of the {name} data gives anything to learn from")
        if self._fruitless > PATIENCE * rows:  # without shuffling, a lane may get the same documents again and again
            raise DataError(f"lane {self.lane} never gets a document of use from the {name} data: set fewer data.lanes")

    def _skip(self, bad: BadRow, row: dict[str, Any]) -> None:
        """Note a bad row. The first rows of the run are the first ones of all lanes."""
        before, source = self.counts.rows, self.order.source
        self.counts.skipped[bad.kind] = self.counts.skipped.get(bad.kind, 0) + 1
        if bad.kind != FILTERED:
            message = functools.partial(located, source, row, bad)
            counted = bad_of(self.counts.skipped)
            policy_of(source).check(before * self.lanes, counted, before + 1, source.name, message)
            announce(bad.kind, message)

    def _anything(self) -> bool:
        """Whether a document of any lane gives something."""
        rows = self.order.source.scan(0)
        while chunk := with_keys(list(islice(rows, READ_AHEAD)), 0):
            found = examine(self.prepare, chunk, self.order.source)
            if any(isinstance(example, Example) and len(example.tokens) for example in found):
                return True
        return False

    def state(self) -> dict[str, Any]:
        """Where this lane stands, and what it counted.

        ``blocks`` is the length of an epoch, 0 while unknown; ``mark``, of some streams, is where the block begins.
        """
        place: dict[str, Any] = {"block": self.block, "document": self.document, "blocks": self.order.n_blocks or 0}
        if (mark := self.order.mark(self.block)) is not None:
            place["mark"] = mark
        return {**place, **counts_state(self.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue at a state."""
        self.block, self.document = state["block"], state["document"]
        self._reader, self._ahead = None, []
        self.order.claim(self.lane, self.block, state.get("blocks", 0), state.get("mark"))
        self.counts = Counts(**{name: state[name] for name in COUNTS}, skipped=skipped_of(state))


COUNTS = ("documents", "dropped", "truncated", "tokens_cut")
SKIPPED = "skipped/"


def counts_state(counts: Counts) -> dict[str, int]:
    """Counts as plain integers; those of skipped rows under ``skipped/KIND``."""
    skipped = {f"{SKIPPED}{kind}": number for kind, number in counts.skipped.items()}
    return {**{name: getattr(counts, name) for name in COUNTS}, **skipped}


def skipped_of(state: Mapping[str, Any]) -> dict[str, int]:
    """Skipped rows by kind."""
    return {name.removeprefix(SKIPPED): number for name, number in state.items() if name.startswith(SKIPPED)}


class PackedLane:
    """Rows of exactly ``length`` (input, label) pairs: documents end to end, each its own segment, nothing lost.

    A document that does not fit goes on in the lane's next row, where its positions start again from 0.
    """

    def __init__(self, order: BlockOrder, lane: int, lanes: int, prepare: Prepare, length: int) -> None:
        self.documents = Documents(order, lane, lanes, prepare)
        self.length = length
        self.offset = 0

    def next(self) -> Row:
        """The next row."""
        pieces: list[tuple[Example, int, int]] = []
        room = self.length
        while room:
            example = self.documents.peek()
            if example is None or not len(example.tokens):
                self.documents.advance()
                self.documents.skipped()
                continue
            take = min(room, len(example.tokens) - self.offset)
            pieces.append((example, self.offset, take))
            room -= take
            self.offset += take
            if self.offset == len(example.tokens):
                self.documents.count(example)
                self.documents.advance()
                self.offset = 0
        return pack(pieces, self.length)

    def state(self) -> dict[str, Any]:
        return {**self.documents.state(), "offset": self.offset}

    def restore(self, state: dict[str, Any]) -> None:
        self.documents.restore(state)
        self.offset = state["offset"]


def pack(pieces: list[tuple[Example, int, int]], length: int) -> Row:
    """Join pieces ``(example, offset, pairs)`` into one row; what is left of ``length`` is padding, perhaps all."""
    tokens = np.zeros(length, dtype=np.int32)
    labels = np.full(length, -100, dtype=np.int32)
    positions = np.zeros(length, dtype=np.int32)
    segments = np.zeros(length, dtype=np.int32)
    ids, size, start = [], 0, 0
    for number, (example, offset, take) in enumerate(pieces, 1):
        stop = start + take
        tokens[start:stop] = example.tokens[offset : offset + take]
        labels[start:stop] = example.labels[offset : offset + take]
        positions[start:stop] = np.arange(take)
        segments[start:stop] = number
        ids.append(f"{example.id}@{offset}" if offset else example.id)
        size += 0 if offset else example.bytes  # a continued document was counted where it began
        start = stop
    return Row(tokens, labels, positions, segments, ids, size, continues=bool(pieces) and pieces[0][1] > 0)


def single(example: Example) -> Row:
    """A row that holds one example."""
    count = len(example.tokens)
    positions, segments = np.arange(count, dtype=np.int32), np.ones(count, dtype=np.int32)
    row = Row(example.tokens, example.labels, positions, segments, [example.id], example.bytes)
    row.source, row.place = example.source, example.place
    row.cut = example.full_length - sum(example.lengths) if example.truncated else 0
    row.text, row.reference = example.text, example.reference
    return row


class BucketedLane:
    """One example a row; neighbours have similar lengths.

    A window of ``rows_per_window`` examples is sorted by length and cut into groups of ``rows_per_batch``, which come
    in an order drawn from (seed, window). All lanes draw the same order, so that they emit the same length quantile at
    the same time and a global batch over all lanes needs little padding.
    """

    def __init__(
        self,
        order: BlockOrder,
        lane: int,
        lanes: int,
        prepare: Prepare,
        *,
        rows_per_window: int,
        rows_per_batch: int,
        seed: int,
    ) -> None:
        self.documents = Documents(order, lane, lanes, prepare)
        self.groups = max(rows_per_window // rows_per_batch, 1)
        self.rows_per_batch, self.seed = rows_per_batch, seed
        self.window = 0
        self.emitted = 0
        self._start = self.documents.state()
        self._rows: list[Row] = []

    def _fill(self) -> None:
        self._start = self.documents.state()
        examples = [self.documents.next() for _ in range(self.groups * self.rows_per_batch)]
        by_length = sorted(range(len(examples)), key=lambda place: examples[place].bulk)
        groups = generator(self.seed, BUCKET_STREAM, self.window).permutation(self.groups)
        size = self.rows_per_batch
        self._rows = [single(examples[place]) for group in groups for place in by_length[group * size :][:size]]

    def next(self) -> Row:
        """The next row."""
        if self.emitted == len(self._rows):
            self.window += bool(self._rows)
            self.emitted = 0
            self._fill()
        row = self._rows[self.emitted]
        self.emitted += 1
        return row

    def state(self) -> dict[str, Any]:
        return {**self._start, "window": self.window, "emitted": self.emitted}

    def restore(self, state: dict[str, Any]) -> None:
        self.documents.restore(state)
        self._start = self.documents.state()
        self.window = state["window"]
        self._rows, self.emitted = [], 0
        if state["emitted"]:
            self._fill()
            self.emitted = state["emitted"]
