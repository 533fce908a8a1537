"""Rows of a ``.json`` file that is one array of objects, which is read as a whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from lightning_nlp.data.sources.bad_rows import BadRow
from lightning_nlp.data.sources.compressed import open_bytes
from lightning_nlp.data.sources.parsing import Values, check_object, decoded, malformed, may_have_halves
from lightning_nlp.data.sources.records import BOM
from lightning_nlp.errors import DataError


def is_array(path: Path) -> bool:
    """Whether a file begins like a JSON array."""
    with open_bytes(path) as stream:
        return stream.read(4096).removeprefix(BOM).lstrip().startswith(b"[")


class JsonArray:
    """Rows of an array of objects. Where it is malformed, no row of it can be told from another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: list[str] | None = None
        len(self)

    @cached_property
    def _rows(self) -> list[Values | BadRow]:
        with open_bytes(self.path) as stream:
            content = stream.read()
        text = decoded(content)
        if isinstance(text, BadRow):
            raise DataError(f"{self.path} row {text.line + 1}: {text.reason}")
        try:
            found = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{self.path} line {error.lineno}: {malformed(error)}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path}: {malformed(error)}") from error
        suspicious = may_have_halves(content)
        return [check_object(row, suspicious) for row in found]

    def scan(self, mark: int) -> Iterator[tuple[int, Values | BadRow]]:
        yield from enumerate(self._rows[mark:], mark + 1)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, numbers: np.ndarray) -> list[Values | BadRow]:
        return [self._rows[number] for number in numbers.tolist()]

    def close(self) -> None:
        """It is in memory."""

    def count(self) -> int:
        return len(self._rows)

    def place(self, number: int, line: int = 0) -> str:
        return f"{self.path} element {number + 1}"
