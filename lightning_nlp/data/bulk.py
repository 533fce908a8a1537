"""Packed batches straight out of prepared shards: many steps are gathered at once, and batches are views of them.

The rows, and the state of every lane after every step, are those of :class:`~lightning_nlp.data.loader.TrainStream`
over :class:`~lightning_nlp.data.lanes.PackedLane`, bit for bit: a run may go on with either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_nlp.data.bulk_lane import BulkLane, Drawn
from lightning_nlp.data.bulk_text import Text
from lightning_nlp.data.collate import Batch
from lightning_nlp.data.documents import total
from lightning_nlp.data.loader import SNAPSHOTS, TrainStream

TOKENS_AT_ONCE = 1 << 19
"""Tokens gathered at a time, rounded down to whole steps: enough to make the work for each lane small beside it."""
TOKENS_AT_FIRST = 1 << 12
"""The first batch is waited for: as many tokens as this, then four times as many, and so on."""
VIEWED = 32
"""Steps whose micro-batches are cut out of the gathered rows at a time."""


@dataclass(frozen=True)
class Packed:
    """Rows, by name as in :class:`~lightning_nlp.data.collate.Batch`.

    Attributes:
        places: int64 ``[4, rows, T]``: tokens, labels, positions, segments.
        sizes: int64 ``[rows]``, bytes.
        continues: bool ``[rows]``.
        ids: of all pieces.
        bounds: ``[rows + 1]``, where the pieces of each row begin.
    """

    places: Tensor
    sizes: np.ndarray
    continues: np.ndarray
    ids: list[str]
    bounds: list[int]


@dataclass(frozen=True)
class Gathered:
    """The rows of some steps, and where the lanes stood in between.

    Attributes:
        first: the first of the steps.
        steps: ``[steps + 1]``, own rows before each step.
        rows: all of them.
        numbers: int64, of the rows in the run.
        lanes: of the rows.
        drawn: by every own lane, in order; None where it had no row.
        given: ``[steps + 1, own lanes]``, rows of each lane before each step.
        before: states of the lanes at the beginning.
    """

    first: int
    steps: list[int]
    rows: Packed
    numbers: np.ndarray
    lanes: list[int]
    drawn: list[Drawn | None]
    given: np.ndarray
    before: list[dict[str, Any]]

    @property
    def stop(self) -> int:
        return self.first + len(self.steps) - 1


class BulkStream(TrainStream):
    """Gives finished batches in place of rows.

    Args:
        text: what documents are and where.
        task: name of the head the batches are for.
        length: pairs in a row.
        make_lane, settings: as of :class:`TrainStream`.
    """

    lanes: dict[int, BulkLane]  # type: ignore[assignment]

    def __init__(
        self, text: Text, task: str, length: int, make_lane: Callable[[int], BulkLane], **settings: Any
    ) -> None:
        self.text, self.task, self.length = text, task, length
        self._gathered: list[Gathered] = []
        self._tokens_at_once = min(TOKENS_AT_FIRST, TOKENS_AT_ONCE)
        super().__init__(make_lane, **settings)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        while True:
            last, begin = self._current(), self.step
            stop = min(begin + VIEWED, last.stop)
            views = self._views(last, begin, stop)
            for step in range(begin, stop):
                if self.step != step:  # somebody restored another state, or iterates as well
                    break
                self.step += 1
                yield from islice(views, self.micro_batches)

    def _current(self) -> Gathered:
        """The rows that hold the present step."""
        last = self._gathered[-1] if self._gathered else None
        if last is None or self.step == last.stop:
            last = self._gather()
            self._gathered = [old for old in self._gathered if old.stop > self.step - SNAPSHOTS] + [last]
        return last

    def _views(self, gathered: Gathered, begin: int, stop: int) -> Iterator[Batch]:
        """Micro-batches of some steps; of few at a time, since what lives long slows down every garbage collection."""
        steps = gathered.steps[begin - gathered.first : stop - gathered.first + 1]
        first, last, rows = steps[0], steps[-1], gathered.rows
        sizes = [(two - one) // self.micro_batches for one, two in pairwise(steps) for _ in range(self.micro_batches)]
        places = [field.split(sizes) for field in rows.places[:, first:last].unbind()]
        others = [
            torch.from_numpy(values[first:last]).split(sizes)
            for values in (gathered.numbers, rows.continues, rows.sizes)
        ]
        at = first
        for tokens, labels, positions, segments, numbers, continues, size in zip(*places, *others, strict=True):
            to = at + len(numbers)
            yield {
                "tokens": tokens,
                "labels": labels,
                "positions": positions,
                "segments": segments,
                "row_ids": numbers,
                "lanes": gathered.lanes[at:to],
                "continues": continues,
                "bytes": size,
                "example_ids": [rows.ids[begin:end] for begin, end in pairwise(rows.bounds[at : to + 1])],
                "padding": (0, (to - at) * self.length),
                "task": self.task,
            }
            at = to

    def state(self, step: int) -> dict[str, Any]:
        return {"lanes": self._states(step), "step": step, "order": self.fingerprint}

    def counts(self, step: int) -> dict[str, int]:
        return total(state["seen"] for state in self._states(step).values())

    def _states(self, step: int) -> dict[str, dict[str, Any]]:
        if step > self.step or step < self.step - SNAPSHOTS + 1:
            raise KeyError(step)
        if not self._gathered:
            return self._snapshots[step]
        found = next((one for one in self._gathered if one.first <= step <= one.stop), None)
        if found is None:
            raise KeyError(step)
        states = {}
        for place, (number, lane) in enumerate(self.lanes.items()):
            drawn = found.drawn[place]
            rows = int(found.given[step - found.first, place])
            states[str(number)] = found.before[place] if drawn is None else lane.plain(drawn.states[rows])
        return states

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._gathered = []

    def _gather(self) -> Gathered:
        """Draw the rows of the next steps from all own lanes, and make their batches."""
        assert self.global_batch is not None
        most, steps = self._tokens_at_once // self.length, [0]
        self._tokens_at_once = min(4 * self._tokens_at_once, TOKENS_AT_ONCE)
        while True:
            share = self.global_batch.size(self.step + len(steps) - 1) // self.data_ranks
            if len(steps) > 1 and steps[-1] + share > most:
                break
            steps.append(steps[-1] + share)
        first = self.global_batch.first(self.step) // self.data_ranks
        own = len(self.lanes)
        # Own row i (counted from `first`) comes from own lane (first + i) % own.
        leads = (np.arange(own) - first) % own
        given = -(-np.maximum(np.array(steps)[:, None] - leads, 0) // own)
        before = [lane.state() for lane in self.lanes.values()]
        drawn = [
            lane.draw(int(count)) if count else None for lane, count in zip(self.lanes.values(), given[-1], strict=True)
        ]
        places = np.concatenate([lead + own * np.arange(count) for lead, count in zip(leads, given[-1], strict=True)])
        rows = self._packed([one for one in drawn if one is not None], places)
        numbers = (first + np.arange(steps[-1])) * self.data_ranks + self.rank
        lanes = (numbers % self.n_lanes).tolist()
        return Gathered(self.step, steps, rows, numbers, lanes, drawn, given, before)

    def _packed(self, drawn: list[Drawn], places: np.ndarray) -> Packed:
        """All rows.

        Args:
            drawn: the documents of all rows, lane after lane.
            places: where the rows belong, in the same order.
        """
        length = self.length
        documents, offsets, takes = (
            np.concatenate([getattr(one, name) for one in drawn]) for name in ("documents", "offsets", "takes")
        )
        # Cut the documents at the ends of rows, and put the pieces where their rows belong.
        stops = np.cumsum(takes)
        starts = stops - takes
        row = starts // length
        pieces = (stops - 1) // length - row + 1
        owner = np.repeat(np.arange(len(takes)), pieces)
        row = row[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        begin = np.maximum(starts[owner], row * length)
        take = np.minimum(stops[owner], (row + 1) * length) - begin
        offset = offsets[owner] + begin - starts[owner]
        order = np.argsort(places[row], kind="stable")
        document, offset, take = documents[owner[order]], offset[order], take[order]
        start = np.cumsum(take) - take
        heads = np.flatnonzero(start % length == 0)
        number = np.arange(len(start)) - np.repeat(heads, np.diff(heads, append=len(start))) + 1
        count = len(places) * length
        found = np.empty((4, count), dtype=np.int64)
        self.text.fill(document, offset, take, start, found[0], found[1])
        np.subtract(np.arange(count), np.repeat(start, take), out=found[2])
        found[3] = np.repeat(number, take)
        sizes, ids = self.text.describe(document, offset, found[0][start])
        return Packed(
            torch.from_numpy(found.reshape(4, len(places), length)),
            np.add.reduceat(np.where(offset == 0, sizes, 0), heads),
            offset[heads] > 0,
            ids,
            [*heads.tolist(), len(start)],
        )
