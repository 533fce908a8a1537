"""Rows that cannot be used: what is wrong with them, whether that stops the run, and how many were passed over.

A bad row keeps its number and its place in the order, as a document that gives nothing. So what is skipped changes
neither the rows that follow nor what a resumed run sees.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lightning_nlp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning_nlp.data.objectives import Example

Row = dict[str, Any]
Policy = Literal["auto", "error", "skip"]
Extra = Literal["empty", "long", "duplicate_id"]
FIRST_ROWS = 1000
"""Under ``auto``, a bad row among so many stops the run: what is wrong so early is usually wrong everywhere. A share
is never taken of fewer rows either."""
FILTERED = "filtered"
"""Kind of a row that a filter left out, which is no fault."""
KINDS = (
    "malformed_json",
    "not_an_object",
    "invalid_utf8",
    "lone_surrogate",
    "nul_byte",
    "too_long",
    "malformed_table",
    "cell_count",
    "missing_column",
    "missing_value",
    "wrong_type",
    "empty_text",
    "over_length",
    "duplicate_id",
    "unknown_label",
    "bad_conversation",
    "unreadable_file",
    "unusable",
)
"""Everything that can be wrong with a row; ``unusable`` is what an objective refused without saying more."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """What is wrong with a row.

    Attributes:
        kind: one of ``KINDS``, or ``FILTERED``.
        reason: continues the sentence that begins with file and row.
        line: lines from the beginning of the row to the fault.
    """

    kind: str
    reason: str
    line: int = 0


class BadRowError(DataError):
    """Raised by an objective for a row it cannot use; ``kind`` is one of ``KINDS``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class BadRows:
    """What to do about bad rows.

    Attributes:
        policy: ``error`` stops at the first; ``skip`` leaves bad rows out; ``auto`` stops at one among the first 1,000
            rows and skips later ones.
        budget: skipped rows that are too many: a share of the rows read (below 1), or a number.
        also: what else counts as bad: ``empty`` texts, ``long`` ones that would be cut or split, a ``duplicate_id``.
    """

    policy: Policy = "error"
    budget: float = 0.01
    also: frozenset[Extra] = frozenset()

    def __post_init__(self) -> None:
        if self.budget < 0:
            raise ConfigError(f"data.bad_rows_budget must be a share below 1 or a number of rows, not {self.budget}")

    def check(self, place: int, bad: int, rows: int, name: str, reason: Callable[[], str]) -> None:
        """Stop where the policy says so, at a bad row.

        Args:
            place: rows read before it.
            bad: bad rows so far, this one included.
            rows: rows read so far.
            name: of the split.
            reason: one line that names file and row.

        Raises:
            DataError: the row is not to be skipped, or one too many.
        """
        if self.policy == "error" or (self.policy == "auto" and place < FIRST_ROWS):
            raise DataError(reason())
        self.check_budget(bad, rows, name, reason)

    def check_budget(self, bad: int, rows: int, name: str, reason: Callable[[], str] = str) -> None:
        """Stop when too many rows were skipped.

        Raises:
            DataError: more than ``budget``.
        """
        allowed = self.budget if self.budget >= 1 else self.budget * max(rows, FIRST_ROWS)
        if bad > allowed:
            last = f"; the last is {text}" if (text := reason()) else ""
            raise DataError(
                f"{bad} of {rows} rows of the {name} data are bad, more than data.bad_rows_budget {self.budget:g}{last}"
            )


STRICT = BadRows()


def policy_of(source: Any) -> BadRows:
    """What is done about bad rows of a source; one that does not say has none to skip."""
    return getattr(source, "bad_rows", STRICT)


def located(source: Any, row: Row, bad: BadRow) -> str:
    """One line: file and row, and what is wrong there."""
    if "origin" in row:
        source = source.parts[row["origin"]]
    knows = "number" in row and hasattr(source, "place")
    return f"{source.place(row['number'], bad.line) if knows else 'row ' + row['id']}: {bad.reason}"


def examine(
    prepare: Callable[[list[Row]], list[Example | None]], rows: list[Row], source: Any
) -> list[Example | BadRow | None]:
    """Examples of rows, in their order, with the bad rows in their places.

    An objective refuses a row by raising ``DataError``; it is then asked row by row, to lose no other.

    Raises:
        DataError: a row is bad, and the policy of ``source`` is not to skip any.
    """
    good = [row for row in rows if "bad" not in row]
    try:
        found: list[Any] = list(prepare(good)) if good else []
    except DataError:
        found = [refused(prepare, row) for row in good]
        if not any(isinstance(example, BadRow) for example in found):
            raise
    if policy_of(source).policy == "error":
        for row, example in zip(good, found, strict=True):
            if isinstance(example, BadRow):
                raise DataError(located(source, row, example))
    if len(good) == len(rows):
        return found
    rest = iter(found)
    return [row["bad"] if "bad" in row else next(rest) for row in rows]


def refused(prepare: Callable[[list[Row]], list[Example | None]], row: Row) -> Example | BadRow | None:
    """The example of one row, or why there is none."""
    try:
        return prepare([row])[0]
    except DataError as error:
        return fault_of(error)


def fault_of(error: DataError) -> BadRow:
    """What is wrong with the row that an objective refused."""
    return BadRow(getattr(error, "kind", "unusable"), str(error))


def refuse_long(
    prepare: Callable[[list[Row]], list[Example | None]], longest: int
) -> Callable[[list[Row]], list[Example | None]]:
    """``prepare``, refusing documents that would be cut, or go on in another row than they began in."""

    def checked(rows: list[Row]) -> list[Example | None]:
        examples = prepare(rows)
        for row, example in zip(rows, examples, strict=True):
            if example is not None and (example.truncated or len(example.tokens) > longest):
                reason = f"row {row['id']} has {example.full_length} tokens, more than fit ({longest})"
                raise BadRowError("over_length", reason)
        return examples

    return checked


class Skipped:
    """Rows of a source that were passed over, for a message when nothing else was there."""

    def __init__(self, source: Any) -> None:
        self.source, self.bad, self.filtered = source, 0, 0
        self._first = ""

    def note(self, row: Row, bad: BadRow) -> None:
        """Another one."""
        if bad.kind == FILTERED:
            self.filtered += 1
            return
        self.bad += 1
        self._first = self._first or located(self.source, row, bad)

    def check(self, row: Row, bad: BadRow, place: int) -> None:
        """Note row number ``place``, and say so once.

        Raises:
            DataError: it is not to be skipped, or one too many.
        """
        self.note(row, bad)
        if bad.kind != FILTERED:
            message = functools.partial(located, self.source, row, bad)
            policy_of(self.source).check(place, self.bad, place + 1, self.source.name, message)
            announce(bad.kind, message)

    def __str__(self) -> str:
        """`` (12 bad rows, the first is FILE row 1: ...; 3 rows left out by data.filters)``; empty without any."""
        parts = [f"{self.bad} bad rows, the first is {self._first}"] if self.bad else []
        parts += [f"{self.filtered} rows left out by data.filters"] if self.filtered else []
        return f" ({'; '.join(parts)})" if parts else ""


def usable(rows: Iterable[Row], source: Any, skipped: Skipped | None = None) -> Iterator[Row]:
    """The rows of a scan that are not bad, for readers that need no place in the order; others go to ``skipped``.

    Raises:
        DataError: a row is not to be skipped, or one too many.
    """
    skipped = skipped or Skipped(source)
    for place, row in enumerate(rows):
        if "bad" in row:
            skipped.check(row, row["bad"], place)
        else:
            yield row


_announced: set[str] = set()


def announce(kind: str, message: Callable[[], str]) -> None:
    """Say once a process and kind what is being skipped; the rest is counted."""
    if kind not in _announced:
        _announced.add(kind)
        print(f"skipping bad rows ({kind}): {message()}", file=sys.stderr)


def bad_of(counts: Mapping[str, int]) -> int:
    """Bad rows among the counts of skipped rows by kind."""
    return sum(number for kind, number in counts.items() if kind != FILTERED)
