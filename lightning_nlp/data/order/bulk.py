"""Packed batches straight out of prepared shards: many steps are gathered at once, and batches are views of them.

The rows, and the state of every lane after every step, are bit for bit those of
:class:`~lightning_nlp.data.order.stream.TrainStream` over :class:`~lightning_nlp.data.order.lanes.PackedLane`: a run
may go on with either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

import numpy as np
import torch

from lightning_nlp.data.collate import Batch
from lightning_nlp.data.order.bulk_lane import BulkLane, Drawn, draw
from lightning_nlp.data.order.bulk_text import Text
from lightning_nlp.data.order.documents import total
from lightning_nlp.data.order.stream import SNAPSHOTS, TrainStream

DRAWN = 1 << 20
"""Tokens whose documents are drawn at a time, in whole steps: so many that the work for a lane is small."""
FIRST_DRAWN = 1 << 12
"""The first batch is waited for: as many tokens as this, then four times as many, and so on."""
FILLED = 1 << 16
"""Tokens whose batches are filled at a time, or those of one step: as many as a processor's cache holds."""


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents that fill rows from end to end, row after row; all arrays are int64.

    Attributes:
        documents: ``[P]``, numbers of rows of the source.
        offsets: ``[P]``, the first pair of each.
        takes: ``[P]``, how many pairs.
        heads: ``[rows + 1]``, the first piece of every row.
    """

    documents: np.ndarray
    offsets: np.ndarray
    takes: np.ndarray
    heads: np.ndarray


@dataclass(frozen=True)
class Ahead:
    """What some steps will hold, and where the lanes stand in between.

    Attributes:
        first: the first of the steps.
        steps: ``[steps + 1]``, own rows before each step.
        pieces: of all their rows.
        numbers: int64, of the rows in the run.
        states: by own lane, in order: where it stood after 0, 1, 2 ... of its rows.
        given: ``[steps + 1, own lanes]``, rows of each lane before each step.
    """

    first: int
    steps: list[int]
    pieces: Pieces
    numbers: np.ndarray
    states: list[np.ndarray]
    given: np.ndarray

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
        self._ahead: list[Ahead] = []
        self._most = min(FIRST_DRAWN, DRAWN)
        self._counter = np.arange(0)
        super().__init__(make_lane, **settings)  # type: ignore[arg-type]  # whose rows nobody asks for one by one

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        while True:
            ahead, begin = self._current(), self.step
            rows = ahead.steps[begin - ahead.first + 1] - ahead.steps[begin - ahead.first]
            stop = min(begin + max(FILLED // (rows * self.length), 1), ahead.stop)
            batches = self._batches(ahead, begin, stop)
            for step in range(begin, stop):
                if self.step != step:  # somebody restored another state, or iterates as well
                    break
                self.step += 1
                yield from islice(batches, self.micro_batches)

    def _current(self) -> Ahead:
        """What holds the present step."""
        last = self._ahead[-1] if self._ahead else None
        if last is None or self.step == last.stop:
            last = self._draw()
            self._ahead = [old for old in self._ahead if old.stop > self.step - SNAPSHOTS] + [last]
        return last

    def _batches(self, ahead: Ahead, begin: int, stop: int) -> Iterator[Batch]:
        """Micro-batches of some steps: views of what is filled in for all of them."""
        steps = ahead.steps[begin - ahead.first : stop - ahead.first + 1]
        heads, numbers = ahead.pieces.heads[steps[0] : steps[-1] + 1], ahead.numbers[steps[0] : steps[-1]]
        part = slice(int(heads[0]), int(heads[-1]))
        documents, offsets, takes = (
            values[part] for values in (ahead.pieces.documents, ahead.pieces.offsets, ahead.pieces.takes)
        )
        heads = heads - heads[0]
        starts = np.cumsum(takes) - takes
        order = np.arange(len(takes)) - np.repeat(heads[:-1], np.diff(heads)) + 1
        tokens, labels = np.empty((2, len(numbers) * self.length), dtype=np.int64)
        shards = list(self.text.source.by_shard(documents))
        self.text.fill(shards, offsets, takes, starts, tokens, labels)
        if len(self._counter) < len(tokens):
            self._counter = np.arange(len(tokens))
        positions, segments = np.repeat(starts, takes), np.repeat(order, takes)
        np.subtract(self._counter[: len(tokens)], positions, out=positions)
        sizes, ids = self.text.describe(shards, offsets, tokens[starts])
        bytes_of_rows = np.add.reduceat(np.where(offsets == 0, sizes, 0), heads[:-1])
        micro = [(two - one) // self.micro_batches for one, two in pairwise(steps) for _ in range(self.micro_batches)]
        fields = (torch.from_numpy(values).view(-1, self.length) for values in (tokens, labels, positions, segments))
        rows = (torch.from_numpy(values) for values in (numbers, offsets[heads[:-1]] > 0, bytes_of_rows))
        lanes, bounds, at = (numbers % self.n_lanes).tolist(), heads.tolist(), 0
        for size, *values in zip(micro, *(field.split(micro) for field in (*fields, *rows)), strict=True):
            to = at + size
            yield {
                "tokens": values[0],
                "labels": values[1],
                "positions": values[2],
                "segments": values[3],
                "row_ids": values[4],
                "lanes": lanes[at:to],
                "continues": values[5],
                "bytes": values[6],
                "example_ids": [ids[first:last] for first, last in pairwise(bounds[at : to + 1])],
                "padding": (0, size * self.length),
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
        if not self._ahead:
            return self._snapshots[step]
        found = next((one for one in self._ahead if one.first <= step <= one.stop), None)
        if found is None:
            raise KeyError(step)
        given = found.given[step - found.first].tolist()
        return {
            str(number): lane.plain(states[rows])
            for (number, lane), states, rows in zip(self.lanes.items(), found.states, given, strict=True)
        }

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._ahead = []

    def _draw(self) -> Ahead:
        """Draw the rows of the next steps from all own lanes."""
        assert self.global_batch is not None
        most, steps = self._most // self.length, [0]
        self._most = min(4 * self._most, DRAWN)
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
        lanes, counts = list(self.lanes.values()), given[-1].tolist()
        states = [lane.position[None] for lane in lanes]
        asked = [place for place, count in enumerate(counts) if count]
        drawn = draw([lanes[place] for place in asked], [counts[place] for place in asked])
        for place, after in zip(asked, drawn.states, strict=True):
            states[place] = after
        places = np.concatenate([leads[place] + own * np.arange(counts[place]) for place in asked])
        numbers = (first + np.arange(steps[-1])) * self.data_ranks + self.rank
        return Ahead(self.step, steps, cut(drawn, places, self.length), numbers, states, given)


def cut(drawn: Drawn, places: np.ndarray, length: int) -> Pieces:
    """Cut documents at the ends of rows of ``length`` pairs, and put the pieces where their rows belong.

    Args:
        drawn: the documents.
        places: of the rows, in the order in which they were drawn.
        length: pairs in a row.
    """
    stops = np.cumsum(drawn.takes)
    starts = stops - drawn.takes
    first = starts // length
    pieces = (stops - 1) // length - first + 1
    owner = np.repeat(np.arange(len(pieces)), pieces)
    row = first[owner] + np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begins = np.maximum(starts[owner], row * length)
    takes = np.minimum(stops[owner], (row + 1) * length) - begins
    offsets = drawn.offsets[owner] + begins - starts[owner]
    row = places[row]
    order = np.argsort(row, kind="stable")
    heads = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(places)))])
    return Pieces(drawn.documents[owner[order]], offsets[order], takes[order], heads)
