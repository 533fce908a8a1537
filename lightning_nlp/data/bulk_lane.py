"""A packed lane that draws many rows at once: the same rows and the same state as ``PackedLane``, as arrays.

Which documents fill which row follows from their lengths alone, and those stand in the index of prepared shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_nlp.data.bad_rows import FILTERED
from lightning_nlp.data.documents import COUNTS, PATIENCE, SKIPPED
from lightning_nlp.data.order import BlockOrder
from lightning_nlp.data.prepared_source import PreparedSource
from lightning_nlp.errors import DataError

STATE = ("block", "document", "offset", "documents", "dropped", "split", f"{SKIPPED}{FILTERED}")
"""Where a lane stands, and what it counted."""


@dataclass(frozen=True)
class Drawn:
    """The documents of some rows in turn; all arrays are int64.

    Attributes:
        documents: ``[D]``, numbers of rows of the source; those that give nothing are left out.
        offsets: ``[D]``, the first pair of each that is used.
        takes: ``[D]``, pairs used; together as many as the rows hold.
        states: of the lane, after 0, 1, 2 ... rows: ``[rows + 1, 7]``, as in ``STATE``.
    """

    documents: np.ndarray
    offsets: np.ndarray
    takes: np.ndarray
    states: np.ndarray


class BulkLane:
    """One lane of packed rows of a text each.

    Args:
        order: of a prepared source with a known number of rows.
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
        self._state = np.array([lane, 0, 0, 0, 0, 0, 0], dtype=np.int64)
        self._block = -1
        self._numbers = self._pairs = np.zeros(0, dtype=np.int64)

    def at(self, step: int) -> None:
        """Nothing here depends on the step."""

    def next(self) -> Drawn:
        """The next row alone."""
        return self.draw(1)

    def draw(self, rows: int) -> Drawn:
        """The next ``rows`` rows; the lane then stands behind them.

        Raises:
            DataError: no document gives anything, or never one of this lane.
        """
        block, document, offset, *_ = self._state.tolist()
        need, have = rows * self.length, -offset
        numbers, pairs, blocks, places = [], [], [], []
        barren = 0
        while True:
            self._load(block)
            left = self._pairs[document:]
            ends = np.cumsum(left)
            total = int(ends[-1]) if len(ends) else 0
            enough = have + total >= need
            stop = document + (int(np.searchsorted(ends, need - have)) + 1 if enough else len(left))
            numbers.append(self._numbers[document:stop])
            pairs.append(self._pairs[document:stop])
            blocks.append(np.full(stop - document, block))
            places.append(np.arange(document, stop))
            if enough:
                break
            barren = 0 if total else barren + len(left)
            self._check(barren)
            have, block, document = have + total, block + self.order.lanes, 0
        return self._cut(rows, offset, *map(np.concatenate, (numbers, pairs, blocks, places)))

    def _cut(
        self, rows: int, offset: int, numbers: np.ndarray, pairs: np.ndarray, blocks: np.ndarray, places: np.ndarray
    ) -> Drawn:
        """Say what of the documents goes into the rows, and where the lane stands after each of them."""
        ends = np.cumsum(pairs) - offset
        begins = ends - pairs
        row_ends = np.arange(1, rows + 1) * self.length
        last = np.searchsorted(ends, row_ends)
        finished = (ends[last] == row_ends).astype(np.int64)
        states = np.empty((rows + 1, len(STATE)), dtype=np.int64)
        states[0] = self._state
        states[1:, 0] = blocks[last]
        states[1:, 1] = places[last] + finished
        states[1:, 2] = np.where(finished, 0, row_ends - begins[last])
        states[1:, 3] = self._state[3] + np.cumsum(pairs > 0)[last] - 1 + finished
        none = pairs == 0
        filtered = self.source.filtered(numbers[none]) if none.any() else none[:0]
        left_out = np.zeros(len(pairs), dtype=bool)
        left_out[none] = filtered
        split = ~none & (begins // self.length != (ends - 1) // self.length)
        states[1:, 4] = self._state[4] + np.cumsum(none & ~left_out)[last]
        states[1:, 5] = self._state[5] + np.cumsum(split)[last] - split[last] * (1 - finished)
        states[1:, 6] = self._state[6] + np.cumsum(left_out)[last]
        self._state = states[-1]
        used = np.flatnonzero(pairs)
        offsets = np.maximum(-begins[used], 0)
        takes = np.minimum(ends[used], rows * self.length) - np.maximum(begins[used], 0)
        return Drawn(numbers[used], offsets, takes, states)

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

    def plain(self, state: np.ndarray) -> dict[str, Any]:
        """A state as :class:`~lightning_nlp.data.lanes.PackedLane` has it."""
        found = dict(zip(STATE, state.tolist(), strict=True))
        counts = {name: found.get(name, 0) for name in COUNTS}
        if left_out := found[STATE[-1]]:
            counts[STATE[-1]] = left_out
        place = {name: found[name] for name in ("block", "document", "offset")}
        return {**place, "blocks": self.order.n_blocks or 0, "part": 0, **counts, "seen": counts}

    def state(self) -> dict[str, Any]:
        return self.plain(self._state)

    def restore(self, state: dict[str, Any]) -> None:
        self._state = np.array([state.get(name, 0) for name in STATE], dtype=np.int64)
