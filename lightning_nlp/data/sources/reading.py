"""Rows of the local files of one split, as one sequence, whatever their format."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lightning_nlp.data.sources import parsing, records
from lightning_nlp.data.sources.bad_rows import BadRow
from lightning_nlp.data.sources.compressed import open_bytes
from lightning_nlp.data.sources.files import inner_name
from lightning_nlp.data.sources.json_arrays import JsonArray, is_array
from lightning_nlp.data.sources.pairs import PairedFiles
from lightning_nlp.data.sources.parsing import Values
from lightning_nlp.data.sources.table_rows import table_rows
from lightning_nlp.data.sources.text_files import RowFile, TextFile
from lightning_nlp.errors import ConfigError, DataError

LARGE = 1 << 25
"""Bytes of all files of a split; of a smaller one offsets and tables are held in memory."""
OPEN_FILES = 128
"""Files that access by number holds open; a process may have about a thousand."""
FIRST_LOOK = 100
"""Rows whose keys are taken for the columns of a file of JSON lines."""
UNITS = {
    "document": (records.document, parsing.parse_text),
    "paragraph": (records.paragraphs, parsing.parse_paragraph),
    "line": (records.lines, parsing.parse_text),
}


@dataclass(frozen=True)
class ReadingConfig:
    """Details of reading files.

    Attributes:
        column_names: of CSV and TSV files that have no heading.
        quotes: cells of CSV and TSV files may be quoted; where False, a quote is a character like any other.
        max_row_bytes: a longer line or record is a bad row: a line break is missing, or the file is none of text.
        retries: how often to try again when reading fails, waiting 1, 2, 4 ... seconds, at most 30.
    """

    column_names: list[str] | None = None
    quotes: bool = True
    max_row_bytes: int = 10_000_000
    retries: int = 5

    def __post_init__(self) -> None:
        if self.max_row_bytes < 1:
            raise ConfigError(f"data.reading.max_row_bytes must be at least 1, not {self.max_row_bytes}")
        if self.retries < 0:
            raise ConfigError(f"data.reading.retries must be at least 0, not {self.retries}")
        if self.column_names is not None and len(set(self.column_names)) != len(self.column_names):
            raise ConfigError("data.reading.column_names names a column twice")


@dataclass(frozen=True)
class Files:
    """The files of one split, in reading order.

    Attributes:
        split: its name.
        paths: the files; with ``targets``, those of the sources.
        kind: their format.
        text_unit: what a row of plain text is.
        wanted: columns to read from tables of columns.
        reading: details.
        targets: files of lines aligned with those of ``paths``.
        tolerant: a file that cannot be read counts as one bad row.
    """

    split: str
    paths: tuple[Path, ...]
    kind: str
    text_unit: str
    wanted: tuple[str, ...]
    reading: ReadingConfig
    targets: tuple[Path, ...] = ()
    tolerant: bool = False

    @functools.cached_property
    def parts(self) -> list[RowFile]:
        """The files that hold anything.

        Raises:
            DataError: all of them are empty or damaged, or one is damaged and must not be.
        """
        filled = [number for number in range(len(self.paths)) if self._filled(number)]
        if not filled:
            raise DataError(f"the {self.split} data has no rows: {self.paths[0]} is empty")
        return some_whole([self._guarded(number) for number in filled])

    def _filled(self, number: int) -> bool:
        """Whether there is anything in a file, or in the one aligned with it."""
        sides = [self.paths[number], *([self.targets[number]] if self.targets else [])]
        return any(side.stat().st_size for side in sides)

    @functools.cached_property
    def _large(self) -> bool:
        """Too much for offsets and converted copies to be held in memory."""
        return sum(path.stat().st_size for path in self.paths) >= LARGE

    def _guarded(self, number: int) -> RowFile:
        try:
            return self._opened(number)
        except (DataError, OSError) as error:
            if not self.tolerant:
                raise error if isinstance(error, DataError) else broken(self.paths[number], error) from error
            return DamagedFile(self.paths[number], error)

    def _opened(self, number: int) -> RowFile:
        path, limit = self.paths[number], self.reading.max_row_bytes
        if self.targets:
            return PairedFiles(path, self.targets[number], limit, self._large)
        if self.kind in ("parquet", "arrow"):
            from lightning_nlp.data.sources.table_files import TableFile

            return TableFile(path, self.wanted, self._large)
        if self.kind == "text":
            cut, parse = UNITS[self.text_unit]
            whole = self.text_unit == "document"
            return TextFile(
                path, cut, parse if whole else parsing.limited(parse, limit), UNLIMITED if whole else limit,
                self.text_unit, columns=["text"], keep=self._large,
            )  # fmt: skip
        if self.kind == "jsonl":
            if inner_name(path).suffix.lower() == ".json" and is_array(path):
                return JsonArray(path)
            one = parsing.limited(parsing.parse_json, limit)
            return TextFile(path, records.filled_lines, one, limit, "jsonl", keep=self._large)
        return self._table(path, limit)

    def _table(self, path: Path, limit: int) -> TextFile:
        separator, quotes, names = "\t" if self.kind == "tsv" else ",", self.reading.quotes, self.reading.column_names
        cut = records.table(separator if quotes else None)
        if names is None:
            with open_bytes(path) as stream:
                _, _, heading = next(cut(stream, 0, limit), (0, 0, b""))
            found = parsing.cells_of(heading, separator, quotes)
            if isinstance(found, BadRow):
                raise DataError(f"{path} row 1: {found.reason}")
            if any("\r" in name for name in found):
                raise DataError(f"{path}: its lines end with a carriage return alone: write newlines instead")
            header, names = True, found
        else:
            header = False
        parse = parsing.limited(parsing.parse_cells(names, separator, quotes), limit)
        settings, columns = f"{self.kind} {quotes} {header}", names

        def rows(stream: BinaryIO, offset: int, skip: bool) -> Iterator[tuple[int, Values | BadRow]]:
            return table_rows(stream, offset, limit, columns, separator, quotes, parse, skip)

        return TextFile(
            path, cut, parse, limit, settings,
            heading=header, columns=columns, by_lines=not quotes, rows=rows, keep=self._large,
        )  # fmt: skip

    # Columns --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def columns(self) -> list[str] | None:
        """Columns of the first file that knows them, or the keys of its first rows; None where no row has any."""
        for part in self.parts:
            if part.columns is not None:
                return part.columns
            if known := self._keys_of(part):
                return known
        return None

    def _keys_of(self, part: RowFile) -> list[str]:
        """The keys of the first rows of a file."""
        known: dict[str, None] = {}
        try:
            for _, values in islice(part.scan(0), FIRST_LOOK):
                known |= dict.fromkeys(() if isinstance(values, BadRow) else values)
        except (OSError, ValueError) as error:
            if not self.tolerant:
                raise broken(part.path, error) from error
        return list(known)

    # Access by number -----------------------------------------------------------------------------------------

    @functools.cached_property
    def _numbered(self) -> tuple[list[RowFile], np.ndarray]:
        """Files, and the number of the first row of each (and one more)."""
        parts, sizes = [], [0]
        for part in self.parts:
            try:
                sizes.append(len(part))
                part.close()
            except (DataError, OSError, ValueError) as error:  # ArrowInvalid is a ValueError
                if not self.tolerant or isinstance(part, PairedFiles):
                    raise error if isinstance(error, DataError) else broken(part.path, error) from error
                part = DamagedFile(part.path, error)
                sizes.append(len(part))
            parts.append(part)
        return some_whole(parts), np.cumsum(sizes)

    def __len__(self) -> int:
        return int(self._numbered[1][-1])

    def read(self, numbers: np.ndarray) -> list[Values | BadRow]:
        """Rows by number, in the order asked for."""
        _, starts = self._numbered
        of = np.searchsorted(starts, numbers, side="right") - 1
        if len(of) and (of == of[0]).all():
            return self._used(int(of[0])).read(numbers - starts[of[0]])
        found: list[Any] = [None] * len(numbers)
        for number in np.unique(of):
            places = np.flatnonzero(of == number)
            rows = self._used(int(number)).read(numbers[places] - starts[number])
            for place, row in zip(places.tolist(), rows, strict=True):
                found[place] = row
        return found

    def _used(self, number: int) -> RowFile:
        """A file that is read now; the one whose last reading is longest ago is closed when too many are open."""
        parts, recent = self._numbered[0], self._recent
        recent[number] = None
        recent.move_to_end(number)
        if len(recent) > OPEN_FILES:
            parts[recent.popitem(last=False)[0]].close()
        return parts[number]

    @functools.cached_property
    def _recent(self) -> OrderedDict[int, None]:
        return OrderedDict()

    # Access in order ------------------------------------------------------------------------------------------

    def cursor(self, mark: list[int] | None = None) -> FilesCursor:
        """Rows one after the other, from a mark on."""
        return FilesCursor(self, *(mark or (0, 0)))

    # Messages -------------------------------------------------------------------------------------------------

    def place(self, number: int, line: int = 0) -> str:
        """File and row (line, where rows are lines) of row ``number`` of the split."""
        for part in self.parts:
            try:
                rows = part.count()
            except (OSError, ValueError):  # its end cannot be read
                return str(part.path)
            if number < rows:
                return part.place(number, line)
            number -= rows
        return f"{self.split} row {number}"

    def explain(self, error: Exception) -> DataError | ConfigError:
        """What is wrong with the files, given that reading them raised ``error``."""
        if isinstance(error, (DataError, ConfigError)):
            return error
        return DataError(f"cannot read {self.kind} data of {self.paths[0]}: {root_cause(error)}")


UNLIMITED = 1 << 62


class FilesCursor:
    """Rows of a split in order; ``mark()`` is where the next one begins, as two integers."""

    def __init__(self, files: Files, part: int, mark: int) -> None:
        self._files, self._part, self._mark = files, part, mark
        self._rows: Iterator[tuple[int, Values | BadRow]] | None = None

    def __iter__(self) -> FilesCursor:
        return self

    def __next__(self) -> Values | BadRow:
        while True:
            if self._rows is None:
                if self._part == len(self._files.parts):
                    raise StopIteration
                self._rows = self._files.parts[self._part].scan(self._mark)
            try:
                self._mark, values = next(self._rows)
                return values
            except StopIteration:
                self._skip_to_next()
            except (OSError, ValueError) as error:
                if not permanent(error):
                    raise
                if not self._files.tolerant:
                    raise broken(self._files.parts[self._part].path, error) from error
                self._skip_to_next()
                return unreadable(error)

    def _skip_to_next(self) -> None:
        self._part, self._mark, self._rows = self._part + 1, 0, None

    def mark(self) -> list[int]:
        """Number of the file, and place in it."""
        return [self._part, self._mark]


class DamagedFile:
    """A file that cannot be read: one bad row."""

    def __init__(self, path: Path, error: Exception) -> None:
        self.path, self.error, self._row = path, error, unreadable(error)
        self.columns: list[str] | None = None

    def scan(self, mark: int) -> Iterator[tuple[int, Values | BadRow]]:
        if not mark:
            yield 1, self._row

    def __len__(self) -> int:
        return 1

    def read(self, numbers: np.ndarray) -> list[Values | BadRow]:
        return [self._row for _ in numbers]

    def close(self) -> None:
        """There is nothing."""

    def count(self) -> int:
        return 1

    def place(self, number: int, line: int = 0) -> str:
        return str(self.path)


def some_whole(parts: list[RowFile]) -> list[RowFile]:
    """``parts``, unless none of them can be read.

    Raises:
        DataError: what is wrong with the first one.
    """
    damaged = [part for part in parts if isinstance(part, DamagedFile)]
    if damaged and len(damaged) == len(parts):
        error = damaged[0].error
        raise error if isinstance(error, DataError) else broken(damaged[0].path, error) from error
    return parts


def permanent(error: Exception) -> bool:
    """The content is wrong, so that reading it again would end the same."""
    return not isinstance(error, OSError) or error.errno is None  # of pyarrow; what a system says has a number


def unreadable(error: Exception) -> BadRow:
    """What is wrong with the rest of a file."""
    return BadRow("unreadable_file", f"cannot be read further: {root_cause(error)}")


def broken(path: Path, error: Exception) -> DataError:
    """One line that names the file."""
    return DataError(f"{path}: {root_cause(error)}")


def root_cause(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error).splitlines()[0] if str(error) else type(error).__name__
