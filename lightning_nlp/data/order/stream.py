"""Global batches cut into each rank's micro-batches, with a state that knows no ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, groupby
from typing import Any

from lightning_nlp.data.order.documents import total
from lightning_nlp.data.order.lanes import Lane, Row
from lightning_nlp.data.order.ramp import BatchRamp
from lightning_nlp.data.order.workers import Workers
from lightning_nlp.errors import ConfigError

ROWS_OF_GROUP = 1 << 20
"""More than a group ever has: numbers of rows stay different."""
SNAPSHOTS = 4
"""Steps whose state is remembered, for a consumer that runs ahead by a batch or two."""


class TrainStream:
    """This rank's micro-batches of an endless sequence of global batches.

    Row ``n`` of the run comes from lane ``n % L``; a global batch is the next ``G`` rows; rank ``r`` of ``R`` holds the
    rows with ``n % R == r``, which are those of its own lanes because R divides L.

    Args:
        make_lane: builds a lane by number; called for own lanes only.
        n_lanes: L.
        global_batch: G, or how it grows.
        data_ranks, rank: R and r.
        micro_batches: micro-batches a rank cuts its share of a global batch into.
        fingerprint: what fixes the order; a state with another one is refused.
        spawn: starts worker processes at a state; None: lanes are read in this process.
    """

    def __init__(
        self,
        make_lane: Callable[[int], Lane[Any]],
        *,
        n_lanes: int,
        global_batch: BatchRamp | None,
        data_ranks: int,
        rank: int,
        micro_batches: int,
        fingerprint: str,
        spawn: Callable[[dict[str, Any]], Workers] | None = None,
    ) -> None:
        self.lanes = {number: make_lane(number) for number in range(rank, n_lanes, data_ranks)}
        self.n_lanes, self.global_batch, self.micro_batches = n_lanes, global_batch, micro_batches
        self.data_ranks, self.rank, self.fingerprint = data_ranks, rank, fingerprint
        self.step = 0
        self.spawn = spawn
        self._workers: Workers | None = None
        self._snapshots = {0: self._lane_states()}

    def _lane_states(self) -> dict[str, dict[str, Any]]:
        return {str(number): lane.state() for number, lane in self.lanes.items()}

    def draw(self) -> list[Row]:
        """The present step's rows of the own lanes, in the order of their numbers."""
        assert self.global_batch is not None
        first, size = self.global_batch.first(self.step), self.global_batch.size(self.step)
        rows = []
        for number in range(first + (self.rank - first) % self.data_ranks, first + size, self.data_ranks):
            row = self.lanes[number % self.n_lanes].next()
            row.number, row.lane = number, number % self.n_lanes
            rows.append(row)
        return rows

    def cut(self, rows: list[Row]) -> list[list[Row]]:
        """The micro-batches of a step."""
        each = len(rows) // self.micro_batches
        return [rows[start : start + each] for start in range(0, len(rows), each)]

    def advance(self) -> tuple[list[Row], dict[str, dict[str, Any]]]:
        """Rows of the present step, and where the own lanes stand after it."""
        for lane in self.lanes.values():
            lane.at(self.step)
        return self.draw(), self._lane_states()

    def __iter__(self) -> Iterator[list[Row]]:
        if self.spawn is not None and self._workers is None:
            self._workers = self.spawn(self.state(self.step))
        while True:
            rows, states = self.advance() if self._workers is None else self._workers.next()
            self.remember(states)
            yield from self.cut(rows)

    def remember(self, states: dict[str, dict[str, Any]]) -> None:
        """A step is done, and lanes stand so."""
        self.step += 1
        self._snapshots[self.step] = states
        self._snapshots.pop(self.step - SNAPSHOTS, None)

    def close(self) -> None:
        """Stop worker processes."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def state(self, step: int) -> dict[str, Any]:
        """Own lanes after ``step`` optimizer steps.

        Raises:
            KeyError: that step is too long ago.
        """
        return {"lanes": self._snapshots[step], "step": step, "order": self.fingerprint}

    def counts(self, step: int) -> dict[str, int]:
        """Documents read, dropped, cut and skipped (by kind) by the own lanes for the first ``step`` steps."""
        return total(state["seen"] for state in self._snapshots[step].values())

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
        self.close()
        for number, lane in self.lanes.items():
            lane.restore(state["lanes"][str(number)])
        self.step = state["step"]
        self._snapshots = {self.step: self._lane_states()}


class BudgetStream(TrainStream):
    """Global batches of about equally many tokens: one group of rows from each lane, a few lanes a micro-batch."""

    def draw(self) -> list[Row]:
        rows = []
        for number, lane in self.lanes.items():
            for place, row in enumerate(lane.next()):
                row.number, row.lane = (self.step * self.n_lanes + number) * ROWS_OF_GROUP + place, number
                rows.append(row)
        return rows

    def cut(self, rows: list[Row]) -> list[list[Row]]:
        groups = [list(group) for _, group in groupby(rows, key=lambda row: row.lane)]
        each = len(groups) // self.micro_batches
        return [list(chain(*groups[start : start + each])) for start in range(0, len(groups), each)]
