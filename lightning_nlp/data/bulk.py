"""Packed batches straight out of prepared shards: many steps are gathered at once, and batches are views of them.

The rows, and the state of every lane after every step, are those of :class:`~lightning_nlp.data.loader.TrainStream`
over :class:`~lightning_nlp.data.lanes.PackedLane`, bit for bit: a run may go on with either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_nlp.data.bulk_lane import BulkLane, Drawn
from lightning_nlp.data.collate import Batch
from lightning_nlp.data.documents import total
from lightning_nlp.data.loader import SNAPSHOTS, TrainStream
from lightning_nlp.data.prepared_source import PreparedSource

TOKENS_AT_ONCE = 1 << 19
"""Tokens gathered at a time, rounded down to whole steps: enough to make the work for each lane small beside it."""
TOKENS_AT_FIRST = 1 << 12
"""The first batch is waited for: as many tokens as this, then four times as many, and so on."""


@dataclass(frozen=True)
class Text:
    """How documents of a source become pairs.

    Attributes:
        source: the rows.
        field: of the text.
        bos_id, eos_id: tokens around a document, where there are such.
        bytes_of: UTF-8 bytes that a token spells.
    """

    source: PreparedSource
    field: str
    bos_id: int | None
    eos_id: int | None
    bytes_of: Callable[[int], int]

    @property
    def ends(self) -> int:
        return (self.bos_id is not None) + (self.eos_id is not None)


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
        self._sizes: dict[int, int] = {}
        self._tokens_at_once = min(TOKENS_AT_FIRST, TOKENS_AT_ONCE)
        super().__init__(make_lane, **settings)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        while True:
            last = self._gathered[-1] if self._gathered else None
            if last is None or not last.first <= self.step < last.stop:
                if last is not None and self.step != last.stop:
                    raise RuntimeError("the stream stands at another step than its lanes")
                last = self._gather()
                self._gathered = [old for old in self._gathered if old.stop > self.step - SNAPSHOTS] + [last]
            begin, end = last.steps[self.step - last.first : self.step - last.first + 2]
            self.step += 1
            each = (end - begin) // self.micro_batches
            for start in range(begin, end, each):
                yield self._view(last, start, start + each)

    def _view(self, gathered: Gathered, start: int, stop: int) -> Batch:
        """Some of the rows. Made when it is asked for: what lives long is looked at by every garbage collection."""
        rows = gathered.rows
        tokens, labels, positions, segments = rows.places[:, start:stop].unbind()
        ids, bounds = rows.ids, rows.bounds[start : stop + 1]
        return {
            "tokens": tokens,
            "labels": labels,
            "positions": positions,
            "segments": segments,
            "row_ids": torch.from_numpy(gathered.numbers[start:stop]),
            "lanes": gathered.lanes[start:stop],
            "continues": torch.from_numpy(rows.continues[start:stop]),
            "bytes": torch.from_numpy(rows.sizes[start:stop]),
            "example_ids": [ids[begin:end] for begin, end in pairwise(bounds)],
            "padding": (0, (stop - start) * self.length),
            "task": self.task,
        }

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
        while len(steps) == 1 or steps[-1] + self._share(len(steps) - 1) <= most:
            steps.append(steps[-1] + self._share(len(steps) - 1))
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

    def _share(self, ahead: int) -> int:
        """Own rows of the step that comes ``ahead`` steps later."""
        assert self.global_batch is not None
        return self.global_batch.size(self.step + ahead) // self.data_ranks

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
        self._tokens(document, offset, take, start, found[0], found[1])
        np.subtract(np.arange(count), np.repeat(start, take), out=found[2])
        found[3] = np.repeat(number, take)
        sizes, ids = self._described(document, offset, found[0][start])
        return Packed(
            torch.from_numpy(found.reshape(4, len(places), length)),
            np.add.reduceat(np.where(offset == 0, sizes, 0), heads),
            offset[heads] > 0,
            ids,
            [*heads.tolist(), len(start)],
        )

    def _tokens(
        self,
        document: np.ndarray,
        offset: np.ndarray,
        take: np.ndarray,
        start: np.ndarray,
        tokens: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        """Fill in inputs and labels of all pieces, end to end.

        A document is ``[bos] ids [eos]``; pair ``j`` of it is its tokens ``j`` and ``j + 1``. So labels are ids one
        further on where there is no bos, and inputs are the labels before them.
        """
        text, total = self.text, len(labels)
        shift = 0 if text.bos_id is not None else 1
        firsts = np.empty(len(start), dtype=np.int64)
        ended = np.empty(len(start), dtype=bool)
        for shard, which, places in text.source.by_shard(document):
            ends, ids = shard.ends[text.field], shard.tokens[text.field]
            base = ends[places].astype(np.int64)
            size = ends[places + 1] - base
            first, lengths = base + offset[which] + shift, take[which]
            ended[which] = offset[which] + shift + lengths > size  # the last label is eos
            whole = len(which) == len(start)
            at = start[which] if whole else np.cumsum(lengths) - lengths
            inside = np.arange(total if whole else int(lengths.sum()))
            found = ids.take(inside + np.repeat(first - at, lengths), mode="clip")
            if whole:
                labels[:] = found
            else:
                labels[inside + np.repeat(start[which] - at, lengths)] = found
            firsts[which] = ids.take(first - 1, mode="clip")
        if text.eos_id is not None:
            labels[(start + take - 1)[ended]] = text.eos_id
        if text.bos_id is not None:
            firsts[offset == 0] = text.bos_id
        tokens[1:] = labels[:-1]
        tokens[start] = firsts

    def _described(self, document: np.ndarray, offset: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """UTF-8 bytes that the labels of every piece's document spell, and the piece's id."""
        text = self.text
        sizes = np.empty(len(document), dtype=np.int64)
        names: list[str] = [""] * len(document)
        for shard, which, places in text.source.by_shard(document):
            sizes[which] = shard.sizes[text.field][places]
            found = shard.ids(places)
            if len(found) == len(names):
                names = found
            else:
                for piece, name in zip(which.tolist(), found, strict=True):
                    names[piece] = name
        ids = [f"{name}@{begin}" if begin else name for name, begin in zip(names, offset.tolist(), strict=True)]
        if text.bos_id is None:  # the first token is then predicted from nothing: never
            for token in np.unique(first).tolist():
                if token not in self._sizes:
                    self._sizes[token] = text.bytes_of(token)
            sizes -= np.array([self._sizes[token] for token in first.tolist()], dtype=np.int64)
        return sizes, ids
