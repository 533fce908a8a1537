"""Global batches cut into each rank's micro-batches, with a state that knows no ranks; and exact evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Literal

from lightning_nlp.data.bad_rows import FILTERED, BadRow, announce, bad_of, examine, located, policy_of
from lightning_nlp.data.lanes import (
    BucketedLane,
    PackedLane,
    Prepare,
    Row,
    counts_state,
    pack,
    single,
    with_keys,
)
from lightning_nlp.data.objectives import Example
from lightning_nlp.data.sources import Source
from lightning_nlp.errors import ConfigError, DataError

Lane = PackedLane | BucketedLane
SNAPSHOTS = 4
"""Steps whose state is remembered, for a consumer that runs ahead by a batch or two."""


class TrainStream:
    """This rank's micro-batches of an endless sequence of global batches.

    Row ``n`` of the run comes from lane ``n % L``; global batch ``i`` is rows ``i G`` to ``(i + 1) G - 1``; rank ``r``
    of ``R`` holds the rows with ``n % R == r``, which are those of its own lanes because R divides L.

    Args:
        make_lane: builds a lane by number; called for own lanes only.
        n_lanes: L.
        global_batch: G.
        data_ranks, rank: R and r.
        micro_batch: rows of one micro-batch.
        fingerprint: what fixes the order; a state with another one is refused.
    """

    def __init__(
        self,
        make_lane: Callable[[int], Lane],
        *,
        n_lanes: int,
        global_batch: int,
        data_ranks: int,
        rank: int,
        micro_batch: int,
        fingerprint: str,
    ) -> None:
        if n_lanes % data_ranks or global_batch % data_ranks or (global_batch // data_ranks) % micro_batch:
            raise ConfigError(
                f"lanes {n_lanes}, global batch {global_batch}, {data_ranks} ranks and "
                f"micro-batch {micro_batch} do not divide"
            )
        if global_batch % n_lanes and n_lanes % global_batch:
            raise ConfigError(f"global batch {global_batch} and lanes {n_lanes}: one must divide the other")
        self.lanes = {number: make_lane(number) for number in range(rank, n_lanes, data_ranks)}
        self.n_lanes, self.global_batch, self.micro_batch = n_lanes, global_batch, micro_batch
        self.data_ranks, self.rank, self.fingerprint = data_ranks, rank, fingerprint
        self.step = 0
        self._snapshots = {0: self._lane_states()}

    def _lane_states(self) -> dict[str, dict[str, Any]]:
        return {str(number): lane.state() for number, lane in self.lanes.items()}

    def __iter__(self) -> Iterator[list[Row]]:
        while True:
            first = self.step * self.global_batch
            rows = []
            for number in range(first + self.rank, first + self.global_batch, self.data_ranks):
                row = self.lanes[number % self.n_lanes].next()
                row.number, row.lane = number, number % self.n_lanes
                rows.append(row)
            self._check_budget()
            self.step += 1
            self._snapshots[self.step] = self._lane_states()
            self._snapshots.pop(self.step - SNAPSHOTS, None)
            for start in range(0, len(rows), self.micro_batch):
                yield rows[start : start + self.micro_batch]

    def state(self, step: int) -> dict[str, Any]:
        """Own lanes after ``step`` optimizer steps.

        Raises:
            KeyError: that step is too long ago.
        """
        return {"lanes": self._snapshots[step], "step": step, "order": self.fingerprint}

    def counts(self) -> dict[str, int]:
        """Documents read, dropped, cut and skipped (by kind) by the own lanes so far, read-ahead included."""
        return total(counts_state(lane.documents.counts) for lane in self.lanes.values())

    def _check_budget(self) -> None:
        """Stop when the own lanes together skipped too many rows.

        Raises:
            DataError: more than allowed.
        """
        every = [lane.documents for lane in self.lanes.values()]
        if any(documents.counts.skipped for documents in every):
            bad = sum(bad_of(documents.counts.skipped) for documents in every)
            source = every[0].order.source
            rows = sum(documents.counts.rows for documents in every)
            policy_of(source).check_budget(bad, rows, source.name)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue after the step of ``state``, which must hold (at least) the own lanes.

        Raises:
            ConfigError: the order is another one now; names what changed.
        """
        if state["order"] != self.fingerprint:
            before = dict(part.split("=", 1) for part in state["order"].split())
            now = dict(part.split("=", 1) for part in self.fingerprint.split())
            changed = [
                f"{name} {before.get(name)} -> {now.get(name)}"
                for name in before | now
                if before.get(name) != now.get(name)
            ]
            raise ConfigError(f"the order of the data changed since the checkpoint: {', '.join(changed)}")
        for number, lane in self.lanes.items():
            lane.restore(state["lanes"][str(number)])
        self.step = state["step"]
        self._snapshots = {self.step: self._lane_states()}


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by name."""
    found: dict[str, int] = {}
    for each in counts:
        for name, number in each.items():
            found[name] = found.get(name, 0) + number
    return found


class EvalRows:
    """Every example of a split exactly once, on any number of ranks; all ranks yield equally many micro-batches.

    Args:
        source: the rows.
        prepare: rows to examples.
        mode: ``packed`` (documents end to end, the last row padded) or ``single`` (an example a row).
        max_length: pairs in a packed row.
        micro_batch: rows a rank yields at once; a rank without rows yields an empty list.
        data_ranks, rank: who takes which row.
        by_length: in ``single`` mode, sort windows by length to save padding; False keeps the order.
        lanes: in ``packed`` mode, so many rows at a time, each of which continues the same text as the row of its lane
            before: for models that remember it.
    """

    def __init__(
        self,
        source: Source,
        prepare: Prepare,
        *,
        mode: Literal["packed", "single"],
        max_length: int,
        micro_batch: int,
        data_ranks: int,
        rank: int,
        by_length: bool = True,
        lanes: int | None = None,
    ) -> None:
        if lanes is not None and lanes % (data_ranks * micro_batch):
            raise ConfigError(f"lanes {lanes}, {data_ranks} ranks and micro-batch {micro_batch} do not divide")
        self.by_length, self.lanes = by_length, lanes
        self.source, self.prepare, self.mode, self.max_length = source, prepare, mode, max_length
        self.micro_batch, self.data_ranks, self.rank = micro_batch, data_ranks, rank

    def _examples(self) -> Iterator[Example]:
        rows, found, number, bad = self.source.scan(0), False, 0, 0
        while chunk := with_keys(list(islice(rows, 64)), number):
            for place, example in enumerate(examine(self.prepare, chunk, self.source), number):
                if isinstance(example, BadRow):
                    if example.kind != FILTERED:
                        bad += 1
                        message = functools.partial(located, self.source, chunk[place - number], example)
                        policy_of(self.source).check(place, bad, place + 1, self.source.name, message)
                        announce(example.kind, message)
                elif example is not None:
                    found, example.place = True, place
                    yield example
            number += len(chunk)
        if not found:
            raise DataError(f"no document of the {self.source.name} data gives anything to evaluate")

    def _packed(self) -> Iterator[Row]:
        pieces: list[tuple[Example, int, int]] = []
        room = self.max_length
        for example in self._examples():
            offset = 0
            while offset < len(example.tokens):
                take = min(room, len(example.tokens) - offset)
                pieces.append((example, offset, take))
                offset, room = offset + take, room - take
                if not room:
                    yield pack(pieces, self.max_length)
                    pieces, room = [], self.max_length
        if pieces:
            yield pack(pieces, self.max_length)

    def _in_lanes(self, lanes: int) -> Iterator[Row]:
        """Rows of all lanes in turn; a lane that needs a document takes the next one: the same on all ranks."""
        examples = self._examples()
        current: list[tuple[Example, int] | None] = [None] * lanes
        while True:
            rows: list[Row] = []
            for lane in range(lanes):
                pieces: list[tuple[Example, int, int]] = []
                room = self.max_length
                while room:
                    if current[lane] is None:
                        example = next(examples, None)
                        current[lane] = None if example is None else (example, 0)
                    if (at := current[lane]) is None:
                        break
                    example, offset = at
                    take = min(room, len(example.tokens) - offset)
                    pieces.append((example, offset, take))
                    room -= take
                    current[lane] = (example, offset + take) if offset + take < len(example.tokens) else None
                rows.append(pack(pieces, self.max_length))
                rows[-1].lane = lane if pieces else -1
            if all(row.lane < 0 for row in rows):
                return
            yield from rows

    def _single(self) -> Iterator[Row]:
        examples = self._examples()
        if not self.by_length:
            yield from map(single, examples)
        while window := list(islice(examples, 64 * self.micro_batch * self.data_ranks)):
            yield from map(single, sorted(window, key=lambda example: example.bulk))

    def __iter__(self) -> Iterator[list[Row]]:
        rows = self._single() if self.mode == "single" else self._in_lanes(self.lanes) if self.lanes else self._packed()
        number = 0
        while group := list(islice(rows, self.micro_batch * self.data_ranks)):
            for place, row in enumerate(group):
                row.number = number + place if row.ids else -1
            number += len(group)
            yield group[self.rank :: self.data_ranks]
