"""Aligned texts: line ``n`` of one file belongs to line ``n`` of another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from lightning_nlp.data.sources.bad_rows import BadRow
from lightning_nlp.data.sources.compressed import open_bytes
from lightning_nlp.data.sources.files import COMPRESSIONS, inner_name
from lightning_nlp.data.sources.parsing import Values, limited, parse_text
from lightning_nlp.data.sources.records import lines
from lightning_nlp.data.sources.text_files import TextFile
from lightning_nlp.errors import ConfigError, DataError


class PairedFiles:
    """Rows with a ``source`` and a ``target`` from two files of lines.

    A mark holds both places, of which neither can be told from the other: its low 64 bits are the source's.
    """

    def __init__(self, path: Path, target: Path, limit: int, keep: bool = False) -> None:
        self.path, self.target = path, target
        self.columns: list[str] | None = ["source", "target"]
        parse = limited(parse_text, limit)
        self._limit, self._parse = limit, parse
        self._sides = [TextFile(side, lines, parse, limit, "lines", keep=keep) for side in (path, target)]

    def scan(self, mark: int) -> Iterator[tuple[int, Values | BadRow]]:
        source, target = (side.scan(at) for side, at in zip(self._sides, (mark & LOW, mark >> 64), strict=True))
        for one, other in zip_longest(source, target):
            if one is None or other is None:
                raise self._unequal()
            yield one[0] | other[0] << 64, joined(one[1], other[1], self.target)

    def _unequal(self) -> DataError:
        sizes = []
        for path in (self.path, self.target):
            with open_bytes(path) as stream:
                sizes.append(sum(1 for _ in lines(stream, 0, self._limit)))
        return DataError(f"{self.path} has {sizes[0]} lines and {self.target} has {sizes[1]}: they are not aligned")

    def __len__(self) -> int:
        one, other = map(len, self._sides)
        if one != other:
            raise self._unequal()
        return one

    def read(self, numbers: np.ndarray) -> list[Values | BadRow]:
        pairs = zip(*(side.read(numbers) for side in self._sides), strict=True)
        return [joined(one, other, self.target) for one, other in pairs]

    def close(self) -> None:
        for side in self._sides:
            side.close()

    def count(self) -> int:
        return self._sides[0].count()

    def place(self, number: int, line: int = 0) -> str:
        return self._sides[0].place(number, line)


LOW = (1 << 64) - 1


def joined(source: Values | BadRow, target: Values | BadRow, path: Path) -> Values | BadRow:
    """A row of both sides, or what is wrong with one of them."""
    if isinstance(source, BadRow):
        return source
    if isinstance(target, BadRow):
        return BadRow(target.kind, f"its line in {path}: {target.reason}", target.line)
    return {"source": source["text"], "target": target["text"]}


def partner(path: Path, pair: list[str]) -> Path:
    """The file with the targets for the sources in ``path``, by the endings of both languages.

    Raises:
        ConfigError: it is not there.
    """
    stem = inner_name(path).with_suffix("")
    for compression in ("", *COMPRESSIONS):
        found = stem.with_name(f"{stem.name}.{pair[1]}{compression}")
        if found.is_file():
            return found
    raise ConfigError(f"data.pair: '{path}' has no partner '{stem.name}.{pair[1]}'")
