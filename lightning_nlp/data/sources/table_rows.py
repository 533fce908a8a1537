"""Rows of tables in text, many at a time: where no quote is near, cutting and parsing are one pass over a block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from lightning_nlp.data.sources.bad_rows import BadRow
from lightning_nlp.data.sources.parsing import Parse, Values, wrong_count
from lightning_nlp.data.sources.records import CHUNK, Record, table_records

BLOCK = 1 << 16
"""Bytes that are looked at together, at least."""


class BlockLines:
    """Lines of a stream as records, as :func:`~lightning_nlp.data.sources.records.lines` gives them, or in blocks.

    Args:
        stream: stands at byte ``offset``.
        offset: where the next line begins.
        limit: bytes of a line, of which not all need be kept beyond.
    """

    def __init__(self, stream: BinaryIO, offset: int, limit: int) -> None:
        self._stream, self._limit = stream, limit
        self._lines = deque[bytes]()
        self._passed = 0
        self.offset = offset

    def __iter__(self) -> Iterator[Record]:
        return self

    def __next__(self) -> Record:
        if not self._lines and not self._split(self._read()):
            raise StopIteration
        line = self._lines.popleft()
        start, end = self.offset, self.offset + len(line)
        if not self._lines:
            end, self._passed = end + self._passed, 0
        self.offset = end
        return start, end, line

    def _read(self) -> bytes:
        """The next whole lines; of one that is far too long only the beginning, the rest is passed over."""
        block = self._stream.read(BLOCK)
        if block and not block.endswith(b"\n"):
            block += (rest := self._stream.readline(self._limit + 2))
            while rest and not rest.endswith(b"\n"):
                rest = self._stream.readline(CHUNK)
                self._passed += len(rest)
        return block

    def _split(self, block: bytes) -> bool:
        parts = block.split(b"\n")
        last = parts.pop()
        self._lines.extend(part + b"\n" for part in parts)
        if last:
            self._lines.append(last)
        return bool(self._lines)

    def plain(self, mark: bytes) -> bytes | None:
        """The next block, where one begins here, if nothing in it needs a closer look than for line breaks.

        Args:
            mark: what must not be in it, empty for nothing.
        """
        if self._lines or not (block := self._read()):
            return None
        if not block.endswith(b"\n") or len(block) > self._limit or (mark and mark in block):
            self._split(block)
            return None
        self.offset += len(block)
        return block


def table_rows(
    stream: BinaryIO, offset: int, limit: int, names: list[str], separator: str, quotes: bool, parse: Parse, skip: bool
) -> Iterator[tuple[int, Values | BadRow]]:
    """Rows of a table from byte ``offset`` on, each with the place where the next one begins.

    They are those that ``parse`` makes of the records that a table is cut into, one after the other.

    Args:
        stream: stands at ``offset``.
        limit: bytes of a record, at most.
        names: of the columns.
        separator: between cells.
        quotes: cells may be quoted.
        parse: for a record by itself.
        skip: the first record is a heading.
    """
    source, waiting = BlockLines(stream, offset, limit), deque[Record]()
    records = table_records(source, waiting, limit, separator if quotes else None)
    if skip:
        next(records, None)
    mark = b'"' if quotes else b""
    while True:
        if not waiting:
            start = source.offset
            while (block := source.plain(mark)) is not None:
                yield from plain_rows(block, start, names, separator, parse)
                start = source.offset
        if (record := next(records, None)) is None:
            return
        yield record[1], parse(record[2])


def plain_rows(
    block: bytes, offset: int, names: list[str], separator: str, parse: Parse
) -> Iterator[tuple[int, Values | BadRow]]:
    """Rows of whole lines without quotes, the first of which begins at ``offset``."""
    try:
        whole = block.decode()
    except UnicodeDecodeError:
        whole = "\ufeff"
    end = "\r\n" if "\r" in whole else "\n"
    texts = whole.split(end)
    odd = end == "\r\n" and not len(texts) - 1 == whole.count("\n") == whole.count("\r")
    if (
        odd or "\ufeff" in whole
    ):  # a byte order mark is none of the text; which line is not UTF-8, or is ended otherwise?
        for piece in block.split(b"\n"):
            offset += len(piece) + 1
            if piece.strip(b"\r"):
                yield offset, parse(piece)
        return
    count, more = len(names), len(end)
    sizes = map(len, texts if whole.isascii() else block.split(end.encode()))
    for size, text in zip(sizes, texts, strict=True):
        offset += size + more
        if text:
            cells = text.split(separator)
            yield offset, dict(zip(names, cells)) if len(cells) == count else wrong_count(cells, names)  # noqa: B905
