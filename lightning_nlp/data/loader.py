"""Global batches cut into each rank's micro-batches, with a state that knows no ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

from lightning_nlp.data.documents import COUNTS
from lightning_nlp.data.lanes import Lane, Row
from lightning_nlp.data.ramp import BatchRamp
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
    ) -> None:
        self.lanes = {number: make_lane(number) for number in range(rank, n_lanes, data_ranks)}
        self.n_lanes, self.global_batch, self.micro_batches = n_lanes, global_batch, micro_batches
        self.data_ranks, self.rank, self.fingerprint = data_ranks, rank, fingerprint
        self.step = 0
        self._snapshots = {0: self._lane_states()}

    def _lane_states(self) -> dict[str, dict[str, Any]]:
        return {str(number): lane.state() for number, lane in self.lanes.items()}

    def _draw(self) -> list[list[Row]]:
        """This rank's micro-batches of the present step."""
        assert self.global_batch is not None
        first, size = self.global_batch.first(self.step), self.global_batch.size(self.step)
        rows = []
        for number in range(first + self.rank, first + size, self.data_ranks):
            row = self.lanes[number % self.n_lanes].next()
            row.number, row.lane = number, number % self.n_lanes
            rows.append(row)
        each = len(rows) // self.micro_batches
        return [rows[start : start + each] for start in range(0, len(rows), each)]

    def __iter__(self) -> Iterator[list[Row]]:
        while True:
            for lane in self.lanes.values():
                lane.at(self.step)
            batches = self._draw()
            self.step += 1
            self._snapshots[self.step] = self._lane_states()
            self._snapshots.pop(self.step - SNAPSHOTS, None)
            yield from batches

    def state(self, step: int) -> dict[str, Any]:
        """Own lanes after ``step`` optimizer steps.

        Raises:
            KeyError: that step is too long ago.
        """
        return {"lanes": self._snapshots[step], "step": step, "order": self.fingerprint}

    def counts(self, step: int) -> dict[str, int]:
        """Documents read, dropped and cut by the own lanes in the first ``step`` steps."""
        return {name: sum(state[name] for state in self._snapshots[step].values()) for name in COUNTS}

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


class BudgetStream(TrainStream):
    """Global batches of about equally many tokens: one group of rows from each lane, a few lanes a micro-batch."""

    def _draw(self) -> list[list[Row]]:
        groups = []
        for number, lane in self.lanes.items():
            group = lane.next()
            for place, row in enumerate(group):
                row.number, row.lane = (self.step * self.n_lanes + number) * ROWS_OF_GROUP + place, number
            groups.append(group)
        each = len(groups) // self.micro_batches
        return [list(chain(*groups[start : start + each])) for start in range(0, len(groups), each)]
