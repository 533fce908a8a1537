"""Lanes: independent, deterministic streams of rows, from which global batches are drawn in turn.

Lane ``l`` of ``L`` reads blocks ``l, l + L, l + 2 L, ...`` of the endless sequence and packs or buckets them alone. Its
state is a few integers; the same rows follow after :meth:`restore`, bit for bit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.documents import Documents, counts_state
from lightning_nlp.data.permutation import generator

BUCKET_STREAM = 7
"""Keeps the random numbers of bucket order apart from those of block order."""


Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)


class Lane(Protocol[Item_co]):
    """Gives a row at a time, or a group of rows; where it stands is a few plain values."""

    def at(self, step: int) -> None:
        """What comes next is for optimizer step ``step``."""

    def next(self) -> Item_co:
        """The next row, or group of rows."""

    def state(self) -> dict[str, Any]:
        """Position, and ``seen``: :class:`~lightning_nlp.data.order.documents.Counts` of what was read to get there."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue at a state."""


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
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    words: int = 0
    origin: str = ""


class PackedLane:
    """Rows of exactly ``length`` (input, label) pairs: documents end to end, each its own segment, nothing lost.

    A document that does not fit goes on in the lane's next row, where its positions start again from 0.
    """

    def __init__(self, documents: Documents, length: int) -> None:
        self.documents, self.length = documents, length
        self.offset = 0

    def at(self, step: int) -> None:
        """Rows are for optimizer step ``step`` from now on."""
        self.documents.at(step)

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
                self.documents.advance()
                self.documents.count(example, split=take < len(example.tokens))
                self.offset = 0
        return pack(pieces, self.length)

    def state(self) -> dict[str, Any]:
        return {**self.documents.state(), "offset": self.offset, "seen": counts_state(self.documents.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        self.documents.restore(state)
        self.offset = state["offset"]


def pack(pieces: list[tuple[Example, int, int]], length: int) -> Row:
    """Join pieces ``(example, offset, pairs)`` into one row; what is left of ``length`` is padding, perhaps all."""
    tokens = np.zeros(length, dtype=np.int32)
    labels = np.full(length, -100, dtype=np.int32)
    positions = np.zeros(length, dtype=np.int32)
    segments = np.zeros(length, dtype=np.int32)
    extras = {
        name: np.zeros(length, dtype=values.dtype)
        for example, _, _ in pieces
        for name, values in example.extras.items()
    }
    ids, size, words, start = [], 0, 0, 0
    for number, (example, offset, take) in enumerate(pieces, 1):
        stop = start + take
        tokens[start:stop] = example.tokens[offset : offset + take]
        labels[start:stop] = example.labels[offset : offset + take]
        positions[start:stop] = np.arange(take)
        segments[start:stop] = number
        for name, values in example.extras.items():
            extras[name][start:stop] = values[offset : offset + take]
        ids.append(f"{example.id}@{offset}" if offset else example.id)
        size += 0 if offset else example.bytes  # a continued document was counted where it began
        words += 0 if offset else example.words
        start = stop
    continues = bool(pieces) and pieces[0][1] > 0
    return Row(tokens, labels, positions, segments, ids, size, continues=continues, extras=extras, words=words)


def single(example: Example) -> Row:
    """A row that holds one example."""
    count = len(example.tokens)
    positions, segments = np.arange(count, dtype=np.int32), np.ones(count, dtype=np.int32)
    row = Row(example.tokens, example.labels, positions, segments, [example.id], example.bytes)
    row.source, row.place, row.words = example.source, example.place, example.words
    row.cut = example.full_length - sum(example.lengths) if example.truncated else 0
    row.text, row.reference, row.extras = example.text, example.reference, example.extras
    return row


class WindowLane(ABC, Generic[Item]):
    """Rows, or groups of rows, made from a window of examples at a time, in an order drawn from (seed, window).

    The state is where the window began, and how much of it is out: to go on, the window is read again.
    """

    def __init__(self, documents: Documents, *, seed: int) -> None:
        self.documents, self.seed = documents, seed
        self.window = 0
        self.emitted = 0
        self._start = documents.state()
        self._made: list[Item] = []

    @abstractmethod
    def make(self) -> list[Item]:
        """What the next window holds, in the order it comes."""

    def order(self, count: int) -> np.ndarray:
        """The order of ``count`` things of this window: the same in all lanes."""
        return generator(self.seed, BUCKET_STREAM, self.window).permutation(count)

    def at(self, step: int) -> None:
        self.documents.at(step)

    def _fill(self) -> None:
        self._start = self.documents.state()
        self._made = self.make()

    def next(self) -> Item:
        """The next row, or group of rows."""
        if self.emitted == len(self._made):
            self.window += bool(self._made)
            self.emitted = 0
            self._fill()
        item = self._made[self.emitted]
        self.emitted += 1
        return item

    def state(self) -> dict[str, Any]:
        # Counts of the state are where the window began, to be counted from again; what was seen is all of the window.
        seen = counts_state(self.documents.counts)
        return {**self._start, "window": self.window, "emitted": self.emitted, "seen": seen}

    def restore(self, state: dict[str, Any]) -> None:
        self.documents.restore(state)
        self._start = self.documents.state()
        self.window = state["window"]
        self._made, self.emitted = [], 0
        if state["emitted"]:
            self._fill()
            self.emitted = state["emitted"]


class BucketedLane(WindowLane[Row]):
    """One example a row; neighbours have similar lengths.

    A window of ``rows_per_window`` examples is sorted by length and cut into groups of ``rows_per_batch``. All lanes
    draw the same order of groups, so that they emit the same length quantile at the same time and a global batch over
    all lanes needs little padding.
    """

    def __init__(self, documents: Documents, *, rows_per_window: int, rows_per_batch: int, seed: int) -> None:
        self.groups = max(rows_per_window // rows_per_batch, 1)
        self.rows_per_batch = rows_per_batch
        super().__init__(documents, seed=seed)

    def make(self) -> list[Row]:
        examples = [self.documents.next() for _ in range(self.groups * self.rows_per_batch)]
        by_length = sorted(range(len(examples)), key=lambda place: examples[place].bulk)
        size = self.rows_per_batch
        return [single(examples[at]) for group in self.order(self.groups) for at in by_length[group * size :][:size]]


class FittedLane(WindowLane[Row]):
    """Rows of ``length`` pairs that hold whole documents, chosen to fit (first-fit decreasing, Johnson 1973).

    A document is cut only where it is longer than a row. What is left of a row is padding.
    """

    def __init__(self, documents: Documents, *, rows_per_window: int, length: int, seed: int) -> None:
        self.rows_per_window, self.length = rows_per_window, length
        super().__init__(documents, seed=seed)

    def make(self) -> list[Row]:
        pieces: list[tuple[Example, int, int]] = []
        for _ in range(self.rows_per_window):
            example = self.documents.next(self.length)
            size = len(example.tokens)
            pieces += [(example, at, min(self.length, size - at)) for at in range(0, size, self.length)]
        bins = first_fit_decreasing([take for _, _, take in pieces], self.length)
        rows = [pack([pieces[place] for place in content], self.length) for content in bins]
        return [rows[place] for place in self.order(len(rows))]


def first_fit_decreasing(sizes: list[int], capacity: int) -> list[list[int]]:
    """Bins of places whose sizes sum to at most ``capacity``: the largest first, each into the first bin with room.

    A tree of the most room below each node finds that bin in logarithmic time. Bins come in the order they were opened.

    Raises:
        ValueError: a size is larger than a bin.
    """
    if max(sizes, default=0) > capacity:
        raise ValueError(f"{max(sizes)} does not fit into {capacity}")
    leaves = 1 << max(len(sizes) - 1, 0).bit_length()
    room = [capacity] * (2 * leaves)
    bins: list[list[int]] = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        node = 1
        while node < leaves:
            node = 2 * node if room[2 * node] >= sizes[place] else 2 * node + 1
        number = node - leaves
        if number == len(bins):
            bins.append([])
        bins[number].append(place)
        room[node] -= sizes[place]
        while node > 1:
            node //= 2
            room[node] = max(room[2 * node], room[2 * node + 1])
    return bins
