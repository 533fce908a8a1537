"""Where text comes from: local files, the Hugging Face Hub, saved datasets, sample builders; one interface.

Reading and memory-mapping is the business of the ``datasets`` library; here are names, splits, checks and messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from lightning_nlp.data import files
from lightning_nlp.data.hub import open_hub
from lightning_nlp.data.permutation import share
from lightning_nlp.data.reading import Files, root_cause
from lightning_nlp.errors import ConfigError, DataError, nearest

Row = dict[str, Any]
SPLIT_KEY = (20260101,)
"""Fixed: a row stays in its split whatever the run's seed is."""
TEXTS = frozenset({"text", "text_pair", "source", "target", "prompt", "response"})
"""Fields that hold text, which may be empty."""
MAY_BE_EMPTY = TEXTS | {"messages"}
"""Objectives say what becomes of an empty one."""


@dataclass(frozen=True)
class SourceConfig:
    """What to read. See :class:`lightning_nlp.data.module.TextDataModule` for the meaning of each field."""

    path: str | list[str]
    format: Literal["auto", "text", "jsonl", "csv", "tsv", "parquet"] = "auto"
    text_unit: Literal["document", "paragraph", "line"] = "document"
    hub_config: str | None = None
    streaming: bool = False
    validation_fraction: float = 0.05
    take: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(f"data.validation_fraction must be in [0, 1), not {self.validation_fraction}")
        if self.take is not None and self.take < 1:
            raise ConfigError(f"data.take must be at least 1, not {self.take}")


class Source(Protocol):
    """Rows of one split. ``num_rows`` is None for a stream, which can only be scanned."""

    name: str
    num_rows: int | None
    fingerprint: str

    def read(self, indices: np.ndarray) -> list[Row]:
        """Rows by number, in the order asked for."""

    def scan(self, start: int) -> Iterator[Row]:
        """Rows from ``start`` on."""


class Columns:
    """Maps our fields to columns and checks values.

    Args:
        name: of the split; begins the id of a row that has none of its own.
        fields: ``{our field: column}``.
        known: all columns, where they are known before reading.
        files: where the rows lie, for messages.
        optional: fields that may be missing.
    """

    def __init__(
        self,
        name: str,
        fields: dict[str, str],
        known: list[str] | None,
        files: Files | None,
        optional: frozenset[str] = frozenset(),
    ) -> None:
        self.name, self.fields, self.files, self.optional = name, fields, files, optional
        if known is not None:
            self._check(known)

    def _check(self, known: list[str]) -> None:
        for field, column in self.fields.items():
            if column not in known and field not in self.optional:
                hint = f"{nearest(column, known)} (columns: {', '.join(known)})"
                raise ConfigError(f"data.{field}_column '{column}' is not in the {self.name} data{hint}")

    def place(self, number: int) -> str:
        """Where row ``number`` stands, for a message."""
        return self.files.place(number) if self.files is not None else f"{self.name} row {number}"

    def row(self, number: int, values: Row) -> Row:
        """Our fields and an ``id``: the row's own, or split and row number.

        Raises:
            ConfigError: a column that no row has.
            DataError: a missing value, or a text that is none; names file and row.
        """
        identity = values.get("id") if "id" not in self.fields else None
        found: Row = {"id": f"{self.name}:{number}" if identity is None else str(identity)}
        for field, column in self.fields.items():
            value = values.get(column)
            if value is None and field in self.optional:
                continue
            if value is None or (value == "" and field not in MAY_BE_EMPTY):
                self._check(list(values))
                raise DataError(f"{self.place(number)}: column '{column}' is empty")
            if field in TEXTS and not isinstance(value, str):
                raise DataError(f"{self.place(number)}: column '{column}' holds {type(value).__name__}, not text")
            found[field] = value
        return found


class IndexedSource:
    """Random access to a memory-mapped Arrow dataset.

    Args:
        name: of the split.
        dataset: the rows.
        columns: maps them.
        fingerprint: of the content.
        numbers: of the rows in the files, where the dataset is a selection of them.
    """

    def __init__(
        self, name: str, dataset: Any, columns: Columns, fingerprint: str, numbers: np.ndarray | None = None
    ) -> None:
        self.name, self.columns, self.fingerprint, self.numbers = name, columns, fingerprint, numbers
        self.num_rows: int | None = len(dataset)
        if not self.num_rows:
            raise DataError(f"the {name} data has no rows")
        wanted = {*columns.fields.values(), "id"}  # decoding columns nobody asked for costs time
        self.dataset = dataset.select_columns([name for name in dataset.column_names if name in wanted])

    def read(self, indices: np.ndarray) -> list[Row]:
        indices = np.asarray(indices)
        try:
            batch = self.dataset[indices.tolist()]
        except UnicodeDecodeError as error:  # the library checks neither JSON nor Parquet strings when it opens them
            files = self.columns.files
            if files is not None and files.kind != "parquet":
                raise files.explain(error) from error
            raise DataError(f"{self._first_undecodable(indices)}: not UTF-8") from error
        numbers = indices if self.numbers is None else self.numbers[indices]
        names, rows = list(batch), zip(*batch.values(), strict=True)
        return [
            self.columns.row(int(number), dict(zip(names, values, strict=True)))
            for number, values in zip(numbers, rows, strict=True)
        ]

    def _first_undecodable(self, indices: np.ndarray) -> str:
        for index in indices.tolist():
            try:
                self.dataset[index]
            except UnicodeDecodeError:
                return self.columns.place(index if self.numbers is None else int(self.numbers[index]))
        return f"the {self.name} data"

    def scan(self, start: int) -> Iterator[Row]:
        assert self.num_rows is not None
        for first in range(start, self.num_rows, 256):
            yield from self.read(np.arange(first, min(first + 256, self.num_rows)))


class StreamSource:
    """Sequential access to an iterable dataset.

    Args:
        name: of the split.
        dataset: the rows.
        columns: maps them.
        fingerprint: of the content.
        keep: range of hashed row numbers that belongs to the split.
        take: rows after which to stop.
        explain: turns what the library raises into one line.
    """

    num_rows: int | None = None

    def __init__(
        self,
        name: str,
        dataset: Any,
        columns: Columns,
        fingerprint: str,
        *,
        keep: tuple[float, float] = (0.0, 1.0),
        take: int | None = None,
        explain: Callable[[Exception], Exception],
    ) -> None:
        self.name, self.dataset, self.columns, self.fingerprint = name, dataset, columns, fingerprint
        self.keep, self.take, self.explain = keep, take, explain

    def read(self, indices: np.ndarray) -> list[Row]:
        raise TypeError("a stream can only be scanned")

    def scan(self, start: int) -> Iterator[Row]:
        kept = 0
        for number, values in self._numbered():
            if self.keep != (0.0, 1.0):
                place = float(share(np.array([number]), SPLIT_KEY)[0])
                if not self.keep[0] <= place < self.keep[1]:
                    continue
            if self.take is not None and kept >= self.take:
                return
            kept += 1
            if kept > start:
                yield self.columns.row(number, values)

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        rows = enumerate(self.dataset)
        while True:
            try:
                found = next(rows, None)
            except Exception as error:  # the library raises a dozen kinds for malformed content
                raise self.explain(error) from error
            if found is None:
                return
            yield found


def open_splits(
    config: SourceConfig,
    fields: dict[str, str],
    names: dict[str, str] | None = None,
    optional: frozenset[str] = frozenset(),
) -> dict[str, Source]:
    """Open every split there is, among train, validation and test.

    Args:
        config: what to read.
        fields: ``{our field: column}``.
        names: how splits are called in ids and messages, where not by their own name.
        optional: fields that rows may lack.

    Raises:
        ConfigError: nothing at that path, or columns it does not have; one line.
        DataError: content that cannot be read.
    """
    path, on_disk, smaller = config.path, {}, ""
    if isinstance(path, str) and path.startswith("hf:"):
        opened, content = open_hub(path[3:], config.hub_config, config.streaming)
    else:
        groups, kind = files.find(path, config.format)
        on_disk = {split: Files(split, tuple(paths), kind) for split, paths in groups.items()}
        opened = {split: found.load(config.text_unit, config.streaming) for split, found in on_disk.items()}
        content = f"{files.fingerprint(groups)}|{kind}|{config.text_unit}"
        if kind == "text":
            smaller = {"document": "paragraph or line", "paragraph": "line"}.get(config.text_unit, "")
    fraction = 0.0 if "validation" in opened else config.validation_fraction
    # What the rows are, not where they lie: a corpus may be moved, or read on another machine, within one run.
    settings = f"{content}|{fields}|{config.streaming}|{fraction}|{config.take}"
    fingerprint = hashlib.sha256(settings.encode()).hexdigest()[:16]
    splits: dict[str, Source] = {}
    for split, dataset in opened.items():
        name = (names or {}).get(split, split)
        held = {"validation": (0.0, fraction), "train": (fraction, 1.0)} if fraction and split == "train" else {}
        if hasattr(dataset, "__len__"):
            rows = min(len(dataset), config.take or len(dataset))
            if rows == 1 and held:
                hint = f": set data.text_unit to {smaller}" if smaller else ""
                raise ConfigError(f"data.path '{path}' is one single row, and none is left for validation{hint}")
            numbers = hash_split(rows, fraction) if held else {name: None}
            for part, chosen in numbers.items():
                shown = (names or {}).get(part, part)
                columns = Columns(shown, fields, list(dataset.column_names), on_disk.get(split), optional)
                taken = dataset.select(range(rows) if chosen is None else chosen)
                splits[part if held else split] = IndexedSource(shown, taken, columns, fingerprint, chosen)
        else:
            known = list(dataset.column_names) if dataset.column_names else None
            for part, keep in (held or {name: (0.0, 1.0)}).items():
                shown = (names or {}).get(part, part)
                columns = Columns(shown, fields, known, on_disk.get(split), optional)
                explain = on_disk[split].explain if split in on_disk else unreadable
                splits[part if held else split] = StreamSource(
                    shown, dataset, columns, fingerprint, keep=keep, take=config.take, explain=explain
                )
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def unreadable(error: Exception) -> Exception:
    """What to say of a stream that broke."""
    return error if isinstance(error, (DataError, ConfigError)) else DataError(f"reading failed: {root_cause(error)}")


def hash_split(rows: int, fraction: float) -> dict[str, np.ndarray]:
    """Numbers of the rows for training and of those held out for validation, by a stable hash of the number."""
    places = share(np.arange(rows), SPLIT_KEY)
    held = places < fraction
    if rows and not held.any():  # a tiny corpus still gets one row to look at
        held[int(places.argmin())] = True
    if rows and held.all():
        held[int(places.argmax())] = False
    return {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held)}
