"""Reading local files with the ``datasets`` library, and telling which file and row is wrong when it cannot."""

from __future__ import annotations

import csv
import glob
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_nlp.errors import ConfigError, DataError

READERS = {"text": "text", "jsonl": "json", "csv": "csv", "tsv": "csv", "parquet": "parquet"}
CSV_CELL = 1 << 30
"""A document may be longer than the 128 kB that Python's csv module allows by default."""


def quieten() -> None:
    """The library's own progress bars and log lines are not ours to show: what goes wrong is said once, by us."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)


@dataclass(frozen=True)
class Files:
    """The files of one split, in reading order."""

    split: str
    paths: tuple[Path, ...]
    kind: str

    def load(self, text_unit: str, streaming: bool) -> Any:
        """Open them as a dataset.

        Raises:
            DataError: empty or malformed; names file and row.
        """
        import datasets

        quieten()
        filled = [str(path) for path in self.paths if path.stat().st_size]
        if not filled:
            raise DataError(f"the {self.split} data has no rows: {self.paths[0]} is empty")
        options: dict[str, Any] = {}
        if self.kind == "text":
            options = {"sample_by": text_unit, "encoding": "utf-8-sig"}
        elif self.kind in ("csv", "tsv"):
            # Cells are text as they stand: "null", "NA" and "007" are words here, not missing values or numbers.
            options = {"sep": self.separator, "keep_default_na": False, "encoding": "utf-8-sig"}
            names = next(self._cells(Path(filled[0])), [])
            if names and all(names) and len(set(names)) == len(names):
                options["features"] = datasets.Features({name: datasets.Value("string") for name in names})
        try:
            found = datasets.load_dataset(
                READERS[self.kind],
                data_files={self.split: [glob.escape(path) for path in filled]},
                streaming=streaming,
                **options,
            )
        except Exception as error:  # one of many kinds, with the reason in a cause; we look for the row ourselves
            raise self.explain(error) from error
        return found[self.split]

    @property
    def separator(self) -> str:
        """Between cells."""
        return "\t" if self.kind == "tsv" else ","

    def _cells(self, path: Path) -> Iterator[list[str]]:
        csv.field_size_limit(CSV_CELL)
        with path.open(encoding="utf-8-sig", newline="", errors="replace") as stream:
            yield from csv.reader(stream, delimiter=self.separator)

    def explain(self, error: Exception) -> DataError | ConfigError:
        """What is wrong with the files, given that reading them raised ``error``."""
        if isinstance(error, (DataError, ConfigError)):
            return error
        if "corresponds to no data" in str(error):
            return DataError(f"the {self.split} data has no rows: {self.paths[0]} is blank")
        for path in self.paths:
            if (found := diagnose(path, self.kind, self.separator)) is not None:
                return DataError(found)
        return DataError(f"cannot read {self.kind} data of {self.paths[0]}: {root_cause(error)}")

    def place(self, number: int) -> str:
        """File and row (line, for JSON lines) of row ``number`` of the split, where it can be told."""
        left = number
        for path in (path for path in self.paths if path.stat().st_size):
            for row in self._rows(path):
                if not left:
                    return f"{path} row {row}"
                left -= 1
        return f"{self.split} row {number}"

    def _rows(self, path: Path) -> Iterator[int]:
        """Number of every row of a file, as a person counts them."""
        if self.kind == "jsonl" and path.suffix != ".json":  # .json may be one array, without a row a line
            with path.open("rb") as stream:
                yield from (number for number, line in enumerate(stream, 1) if line.strip())
        elif self.kind == "parquet":
            import pyarrow.parquet

            yield from range(1, pyarrow.parquet.ParquetFile(path).metadata.num_rows + 1)
        elif self.kind in ("csv", "tsv"):
            yield from (number for number, cells in enumerate(self._cells(path), 1) if cells and number > 1)


def root_cause(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def diagnose(path: Path, kind: str, separator: str = ",") -> str | None:
    """The first thing in a file that cannot be read; None when all is well."""
    try:
        if kind == "parquet":
            import pyarrow.parquet

            try:
                pyarrow.parquet.ParquetFile(path).read()
            except Exception as error:  # any failure to read is the diagnosis
                return f"{path}: {str(error).splitlines()[0]}"
            return None
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                try:
                    line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    return f"{path} row {number}: not UTF-8 (byte {error.start + 1} of the line)"
        if kind == "jsonl":
            return bad_json(path)
        if kind in ("csv", "tsv"):
            return bad_cells(path, separator)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return None


def bad_json(path: Path) -> str | None:
    """The first line that is no JSON object, or whose values are of another type than those before."""
    types: dict[str, str] = {}
    with path.open(encoding="utf-8-sig") as stream:
        if path.suffix == ".json" and stream.read(4096).lstrip().startswith("["):
            stream.seek(0)
            try:
                json.load(stream)
            except json.JSONDecodeError as error:
                return f"{path} line {error.lineno}: malformed JSON ({error.msg})"
            return None
        stream.seek(0)
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                json.dumps(row, ensure_ascii=False).encode()
            except json.JSONDecodeError as error:
                return f"{path} row {number}: malformed JSON ({error.msg})"
            except UnicodeEncodeError:
                return f"{path} row {number}: half a surrogate pair is no text"
            if not isinstance(row, dict):
                return f"{path} row {number}: not a JSON object"
            for key, value in row.items():
                if value is None:
                    continue
                kind = "number" if isinstance(value, (int, float)) else type(value).__name__
                if types.setdefault(key, kind) != kind:
                    return f"{path} row {number}: '{key}' holds {kind}, rows before hold {types[key]}"
    return None


def bad_cells(path: Path, separator: str) -> str | None:
    """The first row with another number of cells than the heading."""
    csv.field_size_limit(CSV_CELL)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=separator, strict=True)
        try:
            width = len(next(reader, []))
            for number, cells in enumerate(reader, 2):
                if cells and len(cells) != width:
                    return f"{path} row {number}: {len(cells)} cells instead of {width}"
        except csv.Error as error:
            return f"{path} line {reader.line_num}: malformed CSV ({error})"
    return None
