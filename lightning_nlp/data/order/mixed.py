"""Documents and lanes of a mixture: the interfaces of one source, over several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Literal

import numpy as np

from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.documents import Counts, InTurn, SourceDocuments, counts_of, counts_state, total
from lightning_nlp.data.order.lanes import Item, Lane
from lightning_nlp.data.permutation import share
from lightning_nlp.errors import DataError

MIXED_STREAM = 13
"""Keeps the first phases of lanes apart from other random numbers."""


class MixedDocuments(InTurn):
    """One lane's documents of several sources; next comes the source that is furthest behind its share.

    Every document gives each source its rate times the document's cost as credit, and takes the cost from the one it
    came from (smooth weighted round robin): shares are met up to one document, not on average. Lanes start at
    different phases, so that they do not all draw the same source at once.

    Args:
        parts: the sources' documents in this lane, by name.
        rates: shares by step, in the same order.
        seed: of the order of the run.
        lane: number of the lane.
        unit: what a document costs: 1, or its tokens.
        exhaustion: what becomes of a source after ``passes`` through it.
        passes: times a source is read through before that.
    """

    def __init__(
        self,
        parts: dict[str, SourceDocuments],
        rates: Callable[[int], np.ndarray],
        *,
        seed: int,
        lane: int,
        unit: Literal["documents", "tokens"] = "documents",
        exhaustion: Literal["repeat", "drop", "error"] = "repeat",
        passes: int = 1,
    ) -> None:
        self.names, self.parts = list(parts), list(parts.values())
        self.rates, self.unit, self.exhaustion, self.passes = rates, unit, exhaustion, passes
        self.step = 0
        phases = share(np.arange(len(parts)), (seed, MIXED_STREAM, lane))
        self._credit: list[float] = (phases * rates(0)).tolist()
        self._current: int | None = None

    @property
    def counts(self) -> Counts:
        """Of all sources together."""
        return counts_of(total(counts_state(part.counts) for part in self.parts))

    def at(self, step: int) -> None:
        self.step = step

    def peek(self) -> Example | None:
        return self.parts[self._source()].peek()

    def _source(self) -> int:
        """The source of the current document.

        Raises:
            DataError: a source is used up and must not be, or all are.
        """
        if self._current is None:
            shares = self._shares()
            times = "once" if self.passes == 1 else f"{self.passes} times"
            if not shares.any():
                raise DataError(f"the mixture was read {times} in full: train for fewer steps, or let it repeat")
            for name, part, rate in zip(self.names, self.parts, shares, strict=True):
                if self.exhaustion == "error" and rate > 0 and part.passes >= self.passes:
                    raise DataError(f"source '{name}' was read {times}: train for fewer steps, or let it repeat")
            # Of equals, the first.
            behind = [(credit, -number) for number, credit in enumerate(self._credit) if shares[number] > 0]
            self._current = -max(behind)[1]
        return self._current

    def _shares(self) -> np.ndarray:
        """Shares of the sources now; all 0 when every source is used up."""
        shares = self.rates(self.step)
        if self.exhaustion != "drop":
            return shares
        left = np.array([0.0 if part.passes >= self.passes else 1.0 for part in self.parts]) * shares
        return left / max(left.sum(), np.finfo(float).tiny)

    def advance(self) -> None:
        self.parts[self._source()].advance()

    def count(self, example: Example, split: bool = False) -> None:
        """Note a document that is used, and settle the accounts."""
        source = self._source()
        self.parts[source].count(example, split)
        paid = 1.0 if self.unit == "documents" else float(sum(example.lengths))
        for number, rate in enumerate(self._shares().tolist()):
            self._credit[number] += rate * paid
        self._credit[source] -= paid
        self._current = None

    def skipped(self) -> None:
        self.parts[self._source()].skipped()
        if self.exhaustion != "repeat":  # the useless documents may have been the source's last ones
            self._current = None

    def state(self) -> dict[str, Any]:
        sources = {name: part.state() for name, part in zip(self.names, self.parts, strict=True)}
        current = -1 if self._current is None else self._current
        mixture = {"sources": sources, "credit": list(self._credit), "current": current, "step": self.step}
        return {**mixture, **counts_state(self.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        for name, part in zip(self.names, self.parts, strict=True):
            part.restore(state["sources"][name])
        self._credit, self.step = list(state["credit"]), state["step"]
        self._current = None if state["current"] < 0 else state["current"]


class HomogeneousLane(Generic[Item]):
    """A lane whose rows of one step are all from one source, the same in all lanes.

    Args:
        lanes: a lane for each source, by name.
        choose: number of the source of a step.
    """

    def __init__(self, lanes: dict[str, Lane[Item]], choose: Callable[[int], int]) -> None:
        self.lanes, self.choose = lanes, choose
        self._own = list(lanes.values())
        self._chosen = self._own[choose(0)]

    def at(self, step: int) -> None:
        self._chosen = self._own[self.choose(step)]
        self._chosen.at(step)

    def next(self) -> Item:
        """The next row, or group of rows, of the step's source."""
        return self._chosen.next()

    def state(self) -> dict[str, Any]:
        states = {name: lane.state() for name, lane in self.lanes.items()}
        return {"sources": states, "seen": total(state["seen"] for state in states.values())}

    def restore(self, state: dict[str, Any]) -> None:
        for name, lane in self.lanes.items():
            lane.restore(state["sources"][name])
