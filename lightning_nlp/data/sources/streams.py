"""Rows that come one after the other: files read as they lie, datasets of the Hub read while they are fetched.

A scan knows where it stands as a small plain value, so that another scan goes on from there without reading what lies
before: to the row in a file, or to the state of a dataset of the Hub.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from lightning_nlp.data.permutation import share
from lightning_nlp.data.sources.bad_rows import FILTERED, STRICT, BadRows
from lightning_nlp.data.sources.columns import Columns, Row
from lightning_nlp.data.sources.reading import root_cause
from lightning_nlp.data.sources.retry import Cursor, PersistentCursor, transient
from lightning_nlp.errors import ConfigError, DataError

SPLIT_KEY = (20260101,)
"""Fixed: a row stays in its split whatever the run's seed is."""
Mark = dict[str, Any]
"""Where a scan stands: ``row`` of the files, rows ``kept`` of them, and the ``cursor``'s own mark."""


class Feed(Protocol):
    """All rows of a split, of which several may be read at a time."""

    def cursor(self, mark: Any = None) -> Cursor:
        """Rows from a mark on."""

    def place(self, number: int, line: int = 0) -> str:
        """Where row ``number`` stands, for a message."""

    def explain(self, error: Exception) -> Exception:
        """What the library raised, as one line."""


class StreamSource:
    """Sequential access to a feed.

    Args:
        name: of the split.
        feed: the rows.
        columns: maps them.
        fingerprint: of the content.
        keep: range of hashed row numbers that belongs to the split.
        take: rows after which to stop.
        bad_rows: what to do about rows that cannot be used.
        retries: failures in a row after which to give up.
    """

    num_rows: int | None = None

    def __init__(
        self,
        name: str,
        feed: Feed,
        columns: Columns,
        fingerprint: str,
        *,
        keep: tuple[float, float] = (0.0, 1.0),
        take: int | None = None,
        bad_rows: BadRows = STRICT,
        retries: int = 5,
    ) -> None:
        self.name, self.feed, self.columns, self.fingerprint = name, feed, columns, fingerprint
        self.keep, self.take, self.bad_rows, self.retries = keep, take, bad_rows, retries

    def read(self, indices: np.ndarray) -> list[Row]:
        raise TypeError("a stream can only be scanned")

    def scan(self, start: int, mark: Mark | None = None) -> StreamScan:
        """Rows of the split from ``start`` on.

        Args:
            start: number among the rows of the split.
            mark: where a scan of the same rows stood, at ``start`` or before it.
        """
        return StreamScan(self, start, mark)

    def place(self, number: int, line: int = 0) -> str:
        """Where row ``number`` of the files stands, for a message."""
        return self.feed.place(number, line)


class StreamScan:
    """Rows of a :class:`StreamSource`, and where they have been read to."""

    def __init__(self, source: StreamSource, start: int, mark: Mark | None) -> None:
        self._source, self._whole = source, source.keep == (0.0, 1.0)
        at = mark or {"row": 0, "kept": 0, "cursor": None}
        self._row, self._kept, self._start = at["row"], at["kept"], start
        self._rows = PersistentCursor(source.feed.cursor, at["cursor"], source.retries)

    def __iter__(self) -> StreamScan:
        return self

    def __next__(self) -> Row:
        source, whole, rows = self._source, self._whole, self._rows
        while source.take is None or self._kept < source.take:
            try:
                values = next(rows)
            except StopIteration:
                break
            except Exception as error:  # the libraries raise a dozen kinds for malformed content
                raise self._explained(error) from error
            number = self._row
            self._row += 1
            if not whole and not source.keep[0] <= place_of(number) < source.keep[1]:
                continue
            self._kept += 1
            if self._kept <= self._start:
                continue
            row = source.columns.row(number, values)
            if "bad" in row and source.bad_rows.policy == "error" and row["bad"].kind != FILTERED:
                raise DataError(f"{source.place(number, row['bad'].line)}: {row['bad'].reason}")
            return row
        raise StopIteration

    def _explained(self, error: Exception) -> Exception:
        if transient(error):
            tries = self._source.retries + 1
            return DataError(f"reading the {self._source.name} data failed {tries} times: {root_cause(error)}")
        return self._source.feed.explain(error)

    def mark(self) -> Mark:
        """Where the next row begins; plain values, a few hundred bytes at most."""
        return {"row": self._row, "kept": self._kept, "cursor": self._rows.mark()}


def place_of(number: int) -> float:
    """A stable number in [0, 1) for a row."""
    return float(share(np.array([number]), SPLIT_KEY)[0])


class HubFeed:
    """A dataset of the Hub that is read while it is fetched.

    Args:
        dataset: an iterable dataset of the ``datasets`` library.
        name: of the split.
    """

    def __init__(self, dataset: Any, name: str) -> None:
        self._dataset, self._name = dataset, name

    def cursor(self, mark: Any = None) -> HubCursor:
        return HubCursor(self._dataset, mark)

    def place(self, number: int, line: int = 0) -> str:
        return f"{self._name} row {number}"

    def explain(self, error: Exception) -> Exception:
        return explained(error)


def explained(error: Exception) -> Exception:
    """What the library raised, as one line."""
    return error if isinstance(error, (DataError, ConfigError)) else DataError(f"reading failed: {root_cause(error)}")


class HubCursor:
    """Rows of an iterable dataset; its mark is the dataset's own state."""

    def __init__(self, dataset: Any, mark: Any) -> None:
        self._dataset = copy.deepcopy(dataset)  # its state belongs to one reader
        self._mark = mark
        if mark is not None:
            self._dataset.load_state_dict(mark)
        self._rows: Any = None

    def __next__(self) -> Row:
        if self._rows is None:
            self._rows = iter(self._dataset)
        return next(self._rows)

    def mark(self) -> Any:
        return self._mark if self._rows is None else self._dataset.state_dict()


class RowsFeed:
    """Rows of random access, read in order; a mark is the number of a row.

    Args:
        read: rows by number.
        size: how many there are.
        place: where a row stands.
    """

    def __init__(self, read: Callable[[np.ndarray], list[Any]], size: int, place: Callable[[int, int], str]) -> None:
        self._read, self._size, self._place = read, size, place

    def cursor(self, mark: Any = None) -> RowsCursor:
        return RowsCursor(self._read, self._size, mark or 0)

    def place(self, number: int, line: int = 0) -> str:
        return self._place(number, line)

    def explain(self, error: Exception) -> Exception:
        return explained(error)


class RowsCursor:
    """Rows in order, some at a time."""

    AT_ONCE = 256

    def __init__(self, read: Callable[[np.ndarray], list[Any]], size: int, number: int) -> None:
        self._read, self._size, self._number = read, size, number
        self._held: list[Any] = []

    def __next__(self) -> Any:
        if not self._held:
            if self._number >= self._size:
                raise StopIteration
            stop = min(self._number + self.AT_ONCE, self._size)
            self._held = self._read(np.arange(self._number, stop))[::-1]
        self._number += 1
        return self._held.pop()

    def mark(self) -> int:
        return self._number
