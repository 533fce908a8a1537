"""Rows of one file of text: JSON lines, tables, plain text; one after the other, or any by its number.

A row is found by where it begins. For access by number those places are collected in one pass over the file, which
looks for line breaks and not at values; of a large file they are kept beside the data and memory-mapped.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from lightning_nlp.data.sources.bad_rows import BadRow
from lightning_nlp.data.sources.cache import cached
from lightning_nlp.data.sources.compressed import open_bytes, unpacked
from lightning_nlp.data.sources.parsing import Parse, Values
from lightning_nlp.data.sources.records import Cut, Record

AT_ONCE = 1 << 14
"""Bytes read at once, at least."""
OFFSETS = 1 << 16
"""Offsets held in memory while they are collected."""


class RowFile(Protocol):
    """Rows of one file. A mark is a number that says where a row begins; 0 is the first one."""

    path: Path
    columns: list[str] | None
    """Names of its columns, where they are known without reading rows."""

    def scan(self, mark: int) -> Iterator[tuple[int, Values | BadRow]]:
        """Rows from ``mark`` on, each with the mark of the one after it."""

    def __len__(self) -> int:
        """Number of rows; may have to read the file."""

    def read(self, numbers: np.ndarray) -> list[Values | BadRow]:
        """Rows by number."""

    def close(self) -> None:
        """Give back what access by number holds open; reading opens it again."""

    def count(self) -> int:
        """Number of rows, without making anything for access by number."""

    def place(self, number: int, line: int = 0) -> str:
        """File and row of row ``number`` as a person counts them, ``line`` lines further."""


class TextFile:
    """Rows of a file of text.

    Args:
        path: the file, perhaps compressed.
        cut: finds records.
        parse: makes values of them.
        limit: bytes of a record, at most.
        settings: what ``cut`` depends on, as a text.
        heading: the first record is none of the rows.
        columns: names of its columns, where known.
        by_lines: a row is known by its line; otherwise by its number among the records.
        rows: cuts and parses at once, ``(stream, offset, skip the first record) -> rows``, where that is faster.
        keep: offsets lie in a file of their own, which is memory-mapped; otherwise they are in memory.
    """

    def __init__(
        self,
        path: Path,
        cut: Cut,
        parse: Parse,
        limit: int,
        settings: str,
        *,
        heading: bool = False,
        columns: list[str] | None = None,
        by_lines: bool = True,
        rows: Callable[[BinaryIO, int, bool], Iterator[tuple[int, Values | BadRow]]] | None = None,
        keep: bool = False,
    ) -> None:
        self.path, self.columns = path, columns
        self._cut, self._parse, self._limit, self._settings = cut, parse, limit, settings
        self._heading, self._by_lines, self._keep = heading, by_lines, keep
        self._rows = rows
        self._open: BinaryIO | None = None

    def scan(self, mark: int) -> Iterator[tuple[int, Values | BadRow]]:
        parse = self._parse
        with open_bytes(self.path, mark) as stream:
            if self._rows is not None:
                yield from self._rows(stream, mark, self._heading and not mark)
                return
            records = self._cut(stream, mark, self._limit)
            if self._heading and not mark:
                next(records, None)
            for _, end, content in records:
                yield end, parse(content)

    @cached_property
    def _offsets(self) -> np.ndarray:
        """Where every row begins, and where the last one ends: uint64 ``[rows + 1]``."""
        plain = unpacked(self.path)
        if not self._keep:
            return np.concatenate([np.frombuffer(part, np.uint64) for part in self._collect(plain)])

        def write(stream: BinaryIO) -> None:
            for part in self._collect(plain):
                stream.write(part)

        return np.memmap(cached(plain, f"offsets {self._settings} {self._limit}", write), np.uint64, "r")

    def _collect(self, plain: Path) -> Iterator[bytes]:
        found, end = array("Q"), 0
        with open_bytes(plain) as stream:
            records = self._cut(stream, 0, self._limit)
            if self._heading and (first := next(records, None)) is not None:
                end = first[1]
            for start, end, _ in records:  # noqa: B007 - the last one counts
                found.append(start)
                if len(found) == OFFSETS:
                    yield found.tobytes()
                    del found[:]
        found.append(end)
        yield found.tobytes()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def read(self, numbers: np.ndarray) -> list[Values | BadRow]:
        if self._open is None:
            self._open = unpacked(self.path).open("rb", buffering=0)
        descriptor, parse, longest = self._open.fileno(), self._parse, self._limit + 2
        starts, ends = self._offsets[numbers].tolist(), self._offsets[numbers + 1].tolist()
        found: list[Any] = [None] * len(numbers)
        held, held_start, held_end = b"", 0, 0
        for place in np.argsort(numbers, kind="stable").tolist():  # neighbours come along with one call
            start, end = starts[place], min(ends[place], starts[place] + longest)
            if end > held_end:
                held, held_start = os.pread(descriptor, max(end - start, AT_ONCE), start), start
                held_end = start + len(held)
            found[place] = parse(held[start - held_start : end - held_start])
        return found

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        if self._keep:
            self.__dict__.pop("_offsets", None)

    def _records(self) -> Iterator[Record]:
        with open_bytes(self.path) as stream:
            yield from islice(self._cut(stream, 0, self._limit), int(self._heading), None)

    def count(self) -> int:
        return sum(1 for _ in self._records())

    def place(self, number: int, line: int = 0) -> str:
        if not self._by_lines:
            return f"{self.path} row {number + 1 + self._heading}"
        start, _, _ = next(islice(self._records(), number, None))
        return f"{self.path} row {lines_before(self.path, start) + 1 + line}"


def lines_before(path: Path, offset: int) -> int:
    """Line breaks before a byte of a file."""
    found = 0
    with open_bytes(path) as stream:
        while offset and (part := stream.read(min(offset, 1 << 20))):
            found, offset = found + part.count(b"\n"), offset - len(part)
    return found
