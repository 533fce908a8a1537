"""The examples of a lane: documents in the run's order, tokenised a little ahead, with a position of integers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.blocks import BlockOrder, BlockReader
from lightning_nlp.data.sources.bad_rows import FILTERED, BadRow, Skipped, announce, bad_of, examine, located, policy_of
from lightning_nlp.errors import DataError

Prepare = Callable[[list[dict[str, Any]]], list[Example | None]]
READ_AHEAD = 64
"""Documents read and tokenised at once, at most; has no influence on what comes out."""
READ_AHEAD_TOKENS = 16384
"""Of long documents fewer are read at once: every lane holds its own, and all of them wait for the first batch."""
PATIENCE = 100
"""Epochs' worth of useless documents after which a lane gives up, although other lanes fare better."""


@dataclass(slots=True)
class Counts:
    """What happened to documents on their way; part of the state."""

    documents: int = 0
    dropped: int = 0
    truncated: int = 0
    tokens_cut: int = 0
    split: int = 0
    """Documents that went on in another row."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Bad rows by kind, and filtered ones; not among those dropped."""

    @property
    def rows(self) -> int:
        """Rows read."""
        return self.documents + self.dropped + sum(self.skipped.values())


COUNTS = ("documents", "dropped", "truncated", "tokens_cut", "split")
SKIPPED = "skipped/"


def counts_state(counts: Counts) -> dict[str, int]:
    """Counts as plain integers; those of skipped rows under ``skipped/KIND``."""
    skipped = {f"{SKIPPED}{kind}": number for kind, number in counts.skipped.items()}
    return {**{name: getattr(counts, name) for name in COUNTS}, **skipped}


def counts_of(state: Mapping[str, Any]) -> Counts:
    """The counts that :func:`counts_state` wrote."""
    return Counts(**{name: state.get(name, 0) for name in COUNTS}, skipped=skipped_of(state))


def skipped_of(state: Mapping[str, Any]) -> dict[str, int]:
    """Skipped rows by kind."""
    return {name.removeprefix(SKIPPED): number for name, number in state.items() if name.startswith(SKIPPED)}


def total(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Sums by name."""
    found: dict[str, int] = {}
    for each in counts:
        for name, number in each.items():
            found[name] = found.get(name, 0) + number
    return found


def with_keys(rows: list[dict[str, Any]], first: int, *visit: int) -> list[dict[str, Any]]:
    """Give every row a ``key``: the integers that random parts of its example are a function of.

    No two visits of rows have the same, whoever prepares them: (seed, block, place) in training, where blocks are
    numbered on through the epochs, and the number of the row in evaluation, whose random parts never change.
    """
    for place, row in enumerate(rows, first):
        row["key"] = (*visit, place)
    return rows


class Documents(Protocol):
    """Examples one after the other, with a position that can be set: those of one source, or of a mixture."""

    @property
    def counts(self) -> Counts:
        """What happened to the documents so far."""

    def at(self, step: int) -> None:
        """What is read from now on is for optimizer step ``step`` (counted from 0)."""

    def peek(self) -> Example | None:
        """The example at the current position; None when the document gave none."""

    def advance(self) -> None:
        """Done with the current document."""

    def next(self, longest: int | None = None) -> Example:
        """The next example, skipping documents that give none; one beyond ``longest`` counts as split over rows."""

    def count(self, example: Example, split: bool = False) -> None:
        """Note a document that is used, in more than one row or not."""

    def skipped(self) -> None:
        """Note a document that gives nothing."""

    def state(self) -> dict[str, Any]:
        """Position and counts, as plain values."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue at a state."""


class InTurn:
    """Hands out what :class:`Documents` stand at, one after the other."""

    def next(self: Documents, longest: int | None = None) -> Example:
        """The next example, skipping documents that give none.

        Args:
            longest: pairs of a row; a longer document is counted as split.

        Raises:
            DataError: a whole pass over the data gave none.
        """
        while True:
            example = self.peek()
            self.advance()
            if example is not None:
                self.count(example, split=longest is not None and len(example.tokens) > longest)
                return example
            self.skipped()


class SourceDocuments(InTurn):
    """The examples that one lane gets from one source."""

    def __init__(self, order: BlockOrder, lane: int, lanes: int, prepare: Prepare) -> None:
        self.order, self.lane, self.lanes, self.prepare = order, lane, lanes, prepare
        self.block, self.document, self.part = lane, 0, 0
        self._reader: BlockReader | None = None
        self._ahead: list[Example | BadRow | None] = []
        self._ahead_rows: list[dict[str, Any]] = []
        self._ahead_start = 0
        self._ahead_count = 1
        self.counts = Counts()
        self._fruitless = 0
        self._hopeful = False
        order.claim(lane, lane)

    def at(self, step: int) -> None:
        """Nothing here depends on the step."""

    def peek(self) -> Example | None:
        """The example at the current position; None when the document gave none."""
        reader = self._to_a_document()
        place = self.document - self._ahead_start
        if not 0 <= place < len(self._ahead):
            stop = min(self.document + self._ahead_count, len(reader))
            rows = with_keys(reader.read(self.document, stop), self.document, self.order.seed, self.block)
            self._ahead, self._ahead_start = examine(self.prepare, rows, self.order.source), self.document
            self._ahead_rows = rows
            good = [example for example in self._ahead if isinstance(example, Example)]
            tokens = sum(part.full_length for example in good for part in example.parts)
            enough = READ_AHEAD_TOKENS * len(self._ahead) // max(tokens, 1)
            self._ahead_count = max(min(enough, 4 * self._ahead_count, READ_AHEAD), 1)
            place = 0
        found = self._ahead[place]
        if found is None or isinstance(found, BadRow):
            return None
        return found.more[self.part - 1] if self.part else found

    def _to_a_document(self) -> BlockReader:
        """Go over to the next block that has a document left."""
        while True:
            if self._reader is None:
                self._reader = self.order.reader(self.block)
                self._ahead, self._ahead_start = [], 0
            if self.document < len(self._reader):
                return self._reader
            self.block, self.document, self._reader = self.block + self.lanes, 0, None

    @property
    def passes(self) -> int:
        """How often this lane has been through the source."""
        self._to_a_document()
        return self.block // self.order.n_blocks if self.order.n_blocks else 0

    def advance(self) -> None:
        """Done with the current example: on to the next of its document, or to the next document."""
        example = self._ahead[self.document - self._ahead_start]
        if isinstance(example, Example) and self.part < len(example.more):
            self.part += 1
        else:
            self.document, self.part = self.document + 1, 0

    def count(self, example: Example, split: bool = False) -> None:
        """Note an example that is used, in more than one row or not; a document counts with its first."""
        self._fruitless = 0
        self.counts.documents += example.part == 0
        self.counts.split += example.part == 1 or (split and not example.part and not example.more)
        if example.truncated:
            self.counts.truncated += 1
            self.counts.tokens_cut += example.full_length - sum(example.lengths)

    def skipped(self) -> None:
        """Note the document passed last, which gives nothing, and stop when there is none that does.

        Raises:
            DataError: no document gives anything, or never one of this lane; or it is bad, and not to be skipped.
        """
        place = self.document - 1 - self._ahead_start
        if isinstance(bad := self._ahead[place], BadRow):
            self._skip(bad, self._ahead_rows[place])
        else:
            self.counts.dropped += 1
        self._fruitless += 1
        rows, name = self.order.epoch_rows, self.order.source.name
        if rows is None:
            return
        if self._fruitless >= rows and not self._hopeful:
            self._look_for_anything()
            self._hopeful = True
        if self._fruitless > PATIENCE * rows:  # without shuffling, a lane may get the same documents again and again
            raise DataError(f"lane {self.lane} never gets a document of use from the {name} data: set fewer data.lanes")

    def _skip(self, bad: BadRow, row: dict[str, Any]) -> None:
        """Note a bad row. The first rows of the run are the first ones of all lanes."""
        before, source = self.counts.rows, self.order.source
        self.counts.skipped[bad.kind] = self.counts.skipped.get(bad.kind, 0) + 1
        if bad.kind != FILTERED:
            message = functools.partial(located, source, row, bad)
            counted = bad_of(self.counts.skipped)
            policy_of(source).check(before * self.lanes, counted, before + 1, source.name, message)
            announce(bad.kind, message)

    def _look_for_anything(self) -> None:
        """Whether a document of any lane gives something.

        Raises:
            DataError: none does; says what became of them.
        """
        source = self.order.source
        rows, passed_over = source.scan(0), Skipped(source)
        while chunk := with_keys(list(islice(rows, READ_AHEAD)), 0):
            for row, example in zip(chunk, examine(self.prepare, chunk, source), strict=True):
                if isinstance(example, BadRow):
                    passed_over.note(row, example)
                elif example is not None and len(example.tokens):
                    return
        raise DataError(f"no document of the {source.name} data gives anything to learn from{passed_over}")

    def state(self) -> dict[str, Any]:
        """Where this lane stands, and what it counted.

        ``blocks`` is the length of an epoch, 0 while unknown; ``mark``, of some streams, is where the block begins.
        """
        place: dict[str, Any] = {"block": self.block, "document": self.document, "blocks": self.order.n_blocks or 0}
        place["part"] = self.part
        if (mark := self.order.mark(self.block)) is not None:
            place["mark"] = mark
        return {**place, **counts_state(self.counts)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue at a state."""
        self.block, self.document, self.part = state["block"], state["document"], state.get("part", 0)
        self._reader, self._ahead = None, []
        self.order.claim(self.lane, self.block, state.get("blocks", 0), state.get("mark"))
        self.counts = counts_of(state)
