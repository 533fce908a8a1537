"""Rows of one Parquet or Arrow file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_nlp.data.sources.bad_rows import BadRow
from lightning_nlp.data.sources.cache import cached
from lightning_nlp.data.sources.parsing import Values
from lightning_nlp.errors import DataError

BATCH_ROWS = 1024
OPEN_BATCHES = 64
NOT_UTF8 = BadRow("invalid_utf8", "not UTF-8")


class TableFile:
    """Rows of a Parquet file, or of an Arrow file (stream or file format).

    Args:
        path: the file.
        wanted: columns to read; those it lacks are left out of the rows.
        keep: a Parquet file is converted on disk for access by number; otherwise it is held in memory.

    Raises:
        DataError: it is damaged, or no such file.
    """

    def __init__(self, path: Path, wanted: Sequence[str], keep: bool = False) -> None:
        self.path, self._keep = path, keep
        self._parquet = path.suffix.lower() == ".parquet" or path.open("rb").read(4) == b"PAR1"
        try:
            schema = pq.read_schema(path) if self._parquet else self._table.schema
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{path}: {str(error).splitlines()[0]}") from error
        self.columns: list[str] | None = list(schema.names)
        self._names = [name for name in schema.names if name in set(wanted)]

    @cached_property
    def _table(self) -> MappedFile | HeldTable:
        """An Arrow file, memory-mapped."""
        try:
            return MappedFile(self.path)
        except pa.ArrowInvalid:  # a stream, which has no directory of its batches
            return HeldTable(pa.ipc.open_stream(pa.memory_map(str(self.path))).read_all())

    @cached_property
    def _batches(self) -> MappedFile | HeldTable:
        """Record batches by number, for access to any row."""
        if not self._parquet:
            return self._table
        file = pq.ParquetFile(self.path)
        if not self._keep:
            return HeldTable(file.read(self._names))

        def convert(stream: BinaryIO) -> None:
            schema = pa.schema([file.schema_arrow.field(name) for name in self._names])
            with pa.ipc.new_file(stream, schema) as writer:
                for batch in file.iter_batches(BATCH_ROWS, columns=self._names):
                    writer.write_batch(batch)

        return MappedFile(cached(self.path, f"arrow {self._names}", convert))

    def scan(self, mark: int) -> Iterator[tuple[int, Values | BadRow]]:
        for batch in self._from(mark):
            for values in rows_of(batch, self._names):
                mark += 1
                yield mark, values

    def _from(self, row: int) -> Iterator[Any]:
        if not self._parquet:
            batches = self._batches
            for number in range(int(np.searchsorted(batches.ends, row, side="right")), len(batches.ends)):
                batch = batches.get(number)
                yield from pieces(batch, max(row - (int(batches.ends[number]) - batch.num_rows), 0))
            return
        with pq.ParquetFile(self.path, memory_map=False, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                if row >= (size := file.metadata.row_group(group).num_rows):
                    row -= size
                    continue
                for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=self._names, use_threads=False):
                    passed = min(row, batch.num_rows)
                    row -= passed
                    if passed < batch.num_rows:
                        yield batch.slice(passed)

    def __len__(self) -> int:
        return int(self._batches.ends[-1]) if len(self._batches.ends) else 0

    def read(self, numbers: np.ndarray) -> list[Values | BadRow]:
        batches = self._batches
        places = np.searchsorted(batches.ends, numbers, side="right")
        found = []
        for number, place in zip(numbers.tolist(), places.tolist(), strict=True):
            batch = batches.get(place)
            found.append(row_of(batch, number - (int(batches.ends[place]) - batch.num_rows), self._names))
        return found

    def close(self) -> None:
        for name in ("_batches", "_table"):
            if name in self.__dict__:
                self.__dict__[name].close()

    def count(self) -> int:
        return int(pq.read_metadata(self.path).num_rows) if self._parquet else len(self)

    def place(self, number: int, line: int = 0) -> str:
        return f"{self.path} row {number + 1}"


class MappedFile:
    """Record batches of a memory-mapped Arrow file, made when they are asked for.

    Raises:
        pyarrow.ArrowInvalid: it is no Arrow file, or a stream.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open: OrderedDict[int, Any] = OrderedDict()
        reader = self._reader
        self.schema = reader.schema
        sizes = [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
        self.ends = np.cumsum(sizes, dtype=np.int64)

    @cached_property
    def _reader(self) -> Any:
        return pa.ipc.open_file(pa.memory_map(str(self._path)))

    def get(self, number: int) -> Any:
        """Record batch ``number``."""
        batch = self._open.get(number)
        if batch is None:
            batch = self._open[number] = self._reader.get_batch(number)
            if len(self._open) > OPEN_BATCHES:
                self._open.popitem(last=False)
        return batch

    def close(self) -> None:
        """Unmap the file until it is needed again; where its batches begin stays known."""
        self._open.clear()
        self.__dict__.pop("_reader", None)


class HeldTable:
    """Record batches of a table."""

    def __init__(self, table: Any) -> None:
        self.schema, self._batches = table.schema, table.to_batches()
        self.ends = np.cumsum([batch.num_rows for batch in self._batches], dtype=np.int64)

    def get(self, number: int) -> Any:
        """Record batch ``number``."""
        return self._batches[number]

    def close(self) -> None:
        """It cannot be read again without cost."""


def pieces(batch: Any, start: int) -> Iterator[Any]:
    """Parts of a record batch, from row ``start`` on."""
    for first in range(start, batch.num_rows, BATCH_ROWS):
        yield batch.slice(first, BATCH_ROWS)


def rows_of(batch: Any, names: list[str]) -> Iterator[Values | BadRow]:
    """Rows of a record batch, one by one where a text in it cannot be decoded."""
    if not names:
        yield from ({} for _ in range(batch.num_rows))
        return
    try:
        columns = [batch.column(name).to_pylist() for name in names]
    except UnicodeDecodeError:
        yield from (row_of(batch, number, names) for number in range(batch.num_rows))
        return
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def row_of(batch: Any, number: int, names: list[str]) -> Values | BadRow:
    """One row of a record batch."""
    try:
        return {name: batch.column(name)[number].as_py() for name in names}
    except UnicodeDecodeError:  # neither Parquet nor Arrow checks texts
        return NOT_UTF8
