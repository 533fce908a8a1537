"""Cutting a stream of bytes into records, without looking into them: where each begins is all that a jump needs."""

from __future__ import annotations

import csv
import io
from collections import deque
from collections.abc import Callable, Iterator
from typing import BinaryIO

Record = tuple[int, int, bytes]
"""Where it begins, where the next one begins, and its bytes; of one longer than the limit, not all of them."""
Cut = Callable[[BinaryIO, int, int], Iterator[Record]]
"""``(stream, offset it stands at, longest record) -> records``."""
CHUNK = 1 << 20
BOM = b"\xef\xbb\xbf"


def lines(stream: BinaryIO, offset: int, limit: int) -> Iterator[Record]:
    """Every line is a record, blank ones too."""
    while line := stream.readline(limit + 2):
        end = offset + len(line)
        if len(line) > limit + 1 and not line.endswith(b"\n"):
            while rest := stream.readline(CHUNK):
                end += len(rest)
                if rest.endswith(b"\n"):
                    break
        yield offset, end, line
        offset = end


def filled_lines(stream: BinaryIO, offset: int, limit: int) -> Iterator[Record]:
    """Every line with something on it is a record."""
    return (record for record in lines(stream, offset, limit) if not record[2].isspace())


def paragraphs(stream: BinaryIO, offset: int, limit: int) -> Iterator[Record]:
    """Lines between blank ones are a record."""
    begin, end, size = offset, offset, 0
    parts: list[bytes] = []
    for start, stop, line in lines(stream, offset, limit):
        if line.isspace():
            if parts:
                yield begin, stop, b"".join(parts)
            parts, size = [], 0
            continue
        if not parts:
            begin = start
        if size <= limit:  # of a paragraph without an end only the beginning is kept, to be reported
            parts.append(line)
        size, end = size + len(line), stop
    if parts:
        yield begin, end, b"".join(parts)


def document(stream: BinaryIO, offset: int, limit: int) -> Iterator[Record]:
    """All that is left is one record, of any length."""
    if content := stream.read():
        yield offset, offset + len(content), content


def table(separator: str | None) -> Cut:
    """Records of a table; see :func:`table_records`."""

    def cut(stream: BinaryIO, offset: int, limit: int) -> Iterator[Record]:
        return table_records(lines(stream, offset, limit), deque(), limit, separator)

    return cut


def table_records(
    found: Iterator[Record], waiting: deque[Record], limit: int, separator: str | None
) -> Iterator[Record]:
    """Records of a table, of which a blank line is none; a line of separators alone is a row of empty cells.

    Quoted cells hold line breaks (RFC 4180). A record that cannot be parsed is its first line alone, and the next line
    begins another one: a quote that is never closed spoils one line and not the rest of the file.

    Args:
        found: lines.
        waiting: those that were read ahead; they come before the next of ``found``.
        limit: bytes of a record, at most.
        separator: between cells that may be quoted; None: a quote is a character like any other.
    """
    while (first := waiting.popleft() if waiting else next(found, None)) is not None:
        if not first[2].strip(b"\r\n"):
            continue
        if separator is None or b'"' not in first[2]:
            yield first
            continue
        taken, size, state = [first], len(first[2]), quoting(first[2], separator)
        while state == "open" and size <= limit:
            following = waiting.popleft() if waiting else next(found, None)
            if following is None:
                break
            taken.append(following)
            size += len(following[2])
            if b'"' in following[2]:  # within a quoted cell a line is what a record with an open quote would be
                state = quoting(b'"' + following[2], separator)
        if state == "closed":
            yield first[0], taken[-1][1], b"".join(line for _, _, line in taken)
        else:
            waiting.extendleft(reversed(taken[1:]))
            yield first


def quoting(content: bytes, separator: str) -> str:
    """``closed``: a whole record; ``open``: a quoted cell goes on; ``broken``: none of the two."""
    text = content.removeprefix(BOM).decode("latin-1")  # cuts at ASCII characters, whatever the others are
    try:
        list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        return "open" if "unexpected end of data" in str(error) else "broken"
    return "closed"
