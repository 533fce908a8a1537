"""From the bytes of a record to its values, or to what is wrong with it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from typing import Any

from lightning_nlp.data.sources.bad_rows import BadRow

Values = dict[str, Any]
Parse = Callable[[bytes], Values | BadRow]
DECODE = json.JSONDecoder().raw_decode
HALF_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
csv.field_size_limit(1 << 30)  # a document may be longer than the 128 kB that Python allows by default


def decoded(content: bytes) -> str | BadRow:
    """Text of UTF-8 bytes, without a byte order mark."""
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return not_utf8(content, error)


def not_utf8(content: bytes, error: UnicodeDecodeError) -> BadRow:
    """Where the first byte stands that is none of UTF-8."""
    line = content.count(b"\n", 0, error.start)
    column = error.start - (content.rfind(b"\n", 0, error.start) + 1)
    return BadRow("invalid_utf8", f"not UTF-8 (byte {column + 1} of the line)", line)


def parse_text(content: bytes) -> Values | BadRow:
    """Plain text, without its last line break."""
    text = decoded(content.removesuffix(b"\n").removesuffix(b"\r"))
    if isinstance(text, BadRow):
        return text
    return {"text": text.replace("\r\n", "\n") if "\r" in text else text}


def parse_paragraph(content: bytes) -> Values | BadRow:
    """Plain text, without line breaks around it."""
    return parse_text(content.strip(b"\r\n"))


def parse_json(content: bytes) -> Values | BadRow:
    """One JSON object."""
    try:
        text = content.decode().removeprefix("\ufeff").strip(" \t\r\n")
        values, end = DECODE(text)
    except UnicodeDecodeError as error:
        return not_utf8(content, error)
    except (ValueError, RecursionError) as error:
        return BadRow("malformed_json", malformed(error))
    if end != len(text):
        return BadRow("malformed_json", "malformed JSON (Extra data)")
    if type(values) is dict and b"\\u" not in content:  # nearly always
        return values
    return check_object(values, may_have_halves(content))


def malformed(error: ValueError | RecursionError) -> str:
    """What the JSON parser met: no JSON, a number of thousands of digits, or thousands of brackets."""
    return f"malformed JSON ({getattr(error, 'msg', None) or str(error).split(';')[0]})"


def may_have_halves(content: bytes) -> bool:
    """Whether half a surrogate pair may be in it, as far as can be told without parsing."""
    return b"\\u" in content and HALF_SURROGATE.search(content) is not None


def check_object(values: Any, suspicious: bool) -> Values | BadRow:
    """An object of whole characters; only a ``suspicious`` one is looked through."""
    if not isinstance(values, dict):
        return BadRow("not_an_object", "not a JSON object")
    if suspicious:
        try:
            json.dumps(values, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return BadRow("lone_surrogate", "half a surrogate pair is no text")
    return values


def cells_of(content: bytes, separator: str, quotes: bool) -> list[str] | BadRow:
    """Cells of a record of a table, as they stand: "null", "NA" and "007" are words, not missing values or numbers."""
    text = decoded(content)
    if isinstance(text, BadRow):
        return text
    text = text.rstrip("\r\n")
    if not quotes or '"' not in text:
        return text.split(separator)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        reason = "a quote is never closed" if "unexpected end" in str(error) else str(error)
        return BadRow("malformed_table", f"malformed table ({reason}); where quotes are text, set data.reading.quotes")
    if len(rows) != 1:
        return BadRow("malformed_table", "malformed table (a line ends with a carriage return alone)")
    return rows[0]


def parse_cells(names: list[str], separator: str, quotes: bool) -> Parse:
    """A parser of records of a table with these columns."""

    def parse(content: bytes) -> Values | BadRow:
        cells = cells_of(content, separator, quotes)
        if isinstance(cells, BadRow):
            return cells
        if len(cells) != len(names):
            return wrong_count(cells, names)
        return dict(zip(names, cells, strict=True))

    return parse


def wrong_count(cells: list[str], names: list[str]) -> BadRow:
    """What is wrong with a row that has too many cells, or too few."""
    return BadRow("cell_count", f"{len(cells)} cells instead of {len(names)}")


def limited(parse: Parse, limit: int) -> Parse:
    """A parser that refuses records longer than ``limit`` bytes."""

    def parse_limited(content: bytes) -> Values | BadRow:
        if len(content) > limit and len(content.rstrip()) > limit:  # a blank line may have gone along
            reason = f"longer than {limit} bytes, is a line break missing? If not, raise data.reading.max_row_bytes"
            return BadRow("too_long", reason)
        return parse(content)

    return parse_limited
