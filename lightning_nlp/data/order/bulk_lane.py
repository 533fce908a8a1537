"""A packed lane that draws many rows at once: the same rows and the same state as ``PackedLane``, as arrays.

Which documents fill which row follows from their lengths alone, and those stand in the index of prepared shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.order.documents import COUNTS, PATIENCE, SKIPPED
from lightning_nlp.data.prepared.source import PreparedSource
from lightning_nlp.data.sources.bad_rows import FILTERED
from lightning_nlp.errors import DataError

STATE = ("block", "document", "offset", "documents", "dropped", "split", f"{SKIPPED}{FILTERED}")
"""Where a lane stands, and what it counted."""


@dataclass(frozen=True)
class Chosen:
    """Documents of one block that go into rows of a lane, in order, those that give nothing included.

    Attributes:
        block: their block.
        first: place of the first of them in it.
        numbers: ``[D]``, of the rows of the source.
        pairs: ``[D]``, of each.
    """

    block: int
    first: int
    numbers: np.ndarray
    pairs: np.ndarray


@dataclass(frozen=True)
class Drawn:
    """The documents of some rows of several lanes, lane after lane; all arrays are int64.

    Attributes:
        documents: ``[D]``, numbers of rows of the source; those that give nothing are left out.
        offsets: ``[D]``, the first pair of each that is used.
        takes: ``[D]``, pairs used; together as many as the rows hold.
        states: by lane, ``[rows + 1, 7]``: as in ``STATE``, after 0, 1, 2 ... of its rows.
    """

    documents: np.ndarray
    offsets: np.ndarray
    takes: np.ndarray
    states: list[np.ndarray]


class BulkLane:
    """One lane of packed rows of a text each; :func:`draw` draws from several at once.

    Args:
        order: of a prepared source with a known number of rows.
        source: the rows.
        lane: number of the lane.
        field: of the text.
        length: pairs in a row.
        ends: special tokens around a document, 0 to 2.
    """

    def __init__(
        self, order: BlockOrder, source: PreparedSource, lane: int, field: str, length: int, ends: int
    ) -> None:
        self.order, self.source, self.lane, self.field = order, source, lane, field
        self.length, self.ends = length, ends
        self.position = np.array([lane, 0, 0, 0, 0, 0, 0], dtype=np.int64)
        self._block = -1
        self._numbers = self._pairs = np.zeros(0, dtype=np.int64)

    def choose(self, rows: int) -> list[Chosen]:
        """The documents of the next ``rows`` rows, which must be at least one. The lane stays where it is.

        Raises:
            DataError: no document gives anything, or never one of this lane.
        """
        block, document, offset, *_ = self.position.tolist()
        need, barren = rows * self.length + offset, 0
        chosen = []
        while True:
            self._load(block)
            left = self._pairs[document:]
            ends = np.cumsum(left)
            total = int(ends[-1]) if len(ends) else 0
            enough = total >= need
            stop = document + int(ends.searchsorted(need)) + 1 if enough else len(self._pairs)
            chosen.append(Chosen(block, document, self._numbers[document:stop], self._pairs[document:stop]))
            if enough:
                return chosen
            barren = 0 if total else barren + len(left)
            self._check(barren)
            need, block, document = need - total, block + self.order.lanes, 0

    def _load(self, block: int) -> None:
        """Numbers and pairs of the documents of a block, in its order."""
        if block != self._block:
            self._block, self._numbers = block, self.order.rows(block)
            self._pairs = self._pairs_of(self.source.lengths(self.field, self._numbers))

    def _pairs_of(self, tokens: Any) -> np.ndarray:
        return np.where(tokens > 0, tokens + self.ends - 1, 0)

    def _check(self, barren: int) -> None:
        """Stop after so many useless documents in a row when no lane, or this one never, gets another kind."""
        rows, name = self.source.rows, self.source.name
        if barren >= rows and not self._pairs_of(self.source.longest(self.field)):
            raise DataError(f"no document of the {name} data gives anything to learn from")
        if barren > PATIENCE * rows:
            raise DataError(f"lane {self.lane} never gets a document of use from the {name} data: set fewer data.lanes")

    def plain(self, position: np.ndarray) -> dict[str, Any]:
        """A position as the state that :class:`~lightning_nlp.data.order.lanes.PackedLane` has."""
        found = dict(zip(STATE, position.tolist(), strict=True))
        counts = {name: found.get(name, 0) for name in COUNTS}
        if left_out := found[STATE[-1]]:
            counts[STATE[-1]] = left_out
        place = {name: found[name] for name in ("block", "document", "offset")}
        return {**place, "blocks": self.order.n_blocks or 0, "part": 0, **counts, "seen": counts}

    def state(self) -> dict[str, Any]:
        return self.plain(self.position)

    def restore(self, state: dict[str, Any]) -> None:
        self.position = np.array([state.get(name, 0) for name in STATE], dtype=np.int64)


def draw(lanes: list[BulkLane], rows: list[int]) -> Drawn:
    """The next ``rows[l]`` rows of every lane ``l``, at least one of each; the lanes then stand behind them.

    Raises:
        DataError: no document gives anything, or never one of a lane.
    """
    length, source = lanes[0].length, lanes[0].source
    chosen = [lane.choose(count) for lane, count in zip(lanes, rows, strict=True)]
    parts = list(chain.from_iterable(chosen))
    numbers, pairs = np.concatenate([part.numbers for part in parts]), np.concatenate([part.pairs for part in parts])
    sizes = np.array([len(part.pairs) for part in parts])
    starts = np.cumsum(sizes) - sizes
    blocks = np.repeat(np.array([part.block for part in parts]), sizes)
    places = np.arange(len(pairs)) - np.repeat(starts - np.array([part.first for part in parts]), sizes)
    # First and last document of every lane, of which a beginning was used before, or an end will be used later.
    heads = starts[np.cumsum([0, *(len(one) for one in chosen[:-1])])]
    tails = np.append(heads[1:], len(pairs)) - 1
    before, after = np.zeros_like(pairs), np.zeros_like(pairs)
    positions, counts = np.stack([lane.position for lane in lanes]), np.array(rows)
    before[heads] = positions[:, 2]
    after[tails] = np.add.reduceat(pairs, heads) - positions[:, 2] - counts * length
    takes = pairs - before - after
    ends = np.cumsum(takes)
    # Rows follow each other, and so do lanes: row r ends where (r + 1) * length pairs were taken.
    row_ends = np.arange(1, int(counts.sum()) + 1) * length
    last = ends.searchsorted(row_ends)
    finished = (ends[last] == row_ends) & (after[last] == 0)
    none = pairs == 0
    left_out = np.zeros(len(pairs), dtype=bool)
    if none.any():
        left_out[none] = source.filtered(numbers[none])
    split = ~none & ((ends - takes - before) // length != (ends + after - 1) // length)
    states = np.empty((len(row_ends), len(STATE)), dtype=np.int64)
    states[:, 0] = blocks[last]
    states[:, 1] = places[last] + finished
    states[:, 2] = np.where(finished, 0, row_ends - (ends - takes - before)[last])
    for column, happened in ((3, ~none), (4, none & ~left_out), (5, split), (6, left_out)):
        sums = np.cumsum(happened)
        unfinished = happened[last] & ~finished
        states[:, column] = sums[last] - unfinished + np.repeat(positions[:, column] - (sums - happened)[heads], counts)
    found, at = [], 0
    for lane, count in zip(lanes, rows, strict=True):
        found.append(np.concatenate([lane.position[None], states[at : at + count]]))
        lane.position, at = found[-1][-1], at + count
    used = np.flatnonzero(pairs)
    return Drawn(numbers[used], before[used], takes[used], found)
