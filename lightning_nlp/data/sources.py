"""Where text comes from: local files, the Hugging Face Hub, saved datasets, sample builders; one interface.

Reading and memory-mapping is the business of the ``datasets`` library; here are names, splits, checks and messages.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from lightning_nlp.data import files
from lightning_nlp.data.permutation import share
from lightning_nlp.errors import ConfigError, DataError, nearest

Row = dict[str, Any]
SPLIT_KEY = (20260101,)
"""Fixed: a row stays in its split whatever the run's seed is."""


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
    """Maps our fields to columns and checks values."""

    def __init__(self, name: str, fields: dict[str, str], known: list[str] | None) -> None:
        self.name, self.fields = name, fields
        self.has_id = known is not None and "id" in known and "id" not in fields
        for field, column in fields.items():
            if known is not None and column not in known:
                hint = nearest(column, known) or f" (columns: {', '.join(known)})"
                raise ConfigError(f"data.{field}_column '{column}' is not in the {name} data{hint}")

    def row(self, number: int, values: Row) -> Row:
        """Our fields and an ``id``.

        Raises:
            DataError: a missing text; names the row.
        """
        identity = str(values["id"]) if self.has_id and values.get("id") is not None else f"{self.name}:{number}"
        found: Row = {"id": identity}
        for field, column in self.fields.items():
            value = values.get(column)
            if value is None:
                raise DataError(f"{self.name} row {number}: column '{column}' is empty")
            if field == "text" and not isinstance(value, str):
                raise DataError(f"{self.name} row {number}: column '{column}' holds {type(value).__name__}, not text")
            found[field] = value
        return found


class IndexedSource:
    """Random access to a memory-mapped Arrow dataset."""

    def __init__(self, name: str, dataset: Any, fields: dict[str, str], fingerprint: str) -> None:
        self.name, self.dataset, self.fingerprint = name, dataset, fingerprint
        self.num_rows: int | None = len(dataset)
        self.columns = Columns(name, fields, list(dataset.column_names))
        if not self.num_rows:
            raise DataError(f"the {name} data has no rows")

    def read(self, indices: np.ndarray) -> list[Row]:
        batch = self.dataset[np.asarray(indices).tolist()]
        names = list(batch)
        rows = zip(*(batch[name] for name in names), strict=True)
        return [
            self.columns.row(int(number), dict(zip(names, values, strict=True)))
            for number, values in zip(indices, rows, strict=True)
        ]

    def scan(self, start: int) -> Iterator[Row]:
        assert self.num_rows is not None
        for first in range(start, self.num_rows, 256):
            yield from self.read(np.arange(first, min(first + 256, self.num_rows)))


class StreamSource:
    """Sequential access to an iterable dataset; rows may be filtered by number."""

    num_rows: int | None = None

    def __init__(
        self,
        name: str,
        dataset: Any,
        fields: dict[str, str],
        fingerprint: str,
        keep: tuple[float, float] = (0.0, 1.0),
        take: int | None = None,
    ) -> None:
        self.name, self.dataset, self.fingerprint, self.keep, self.take = name, dataset, fingerprint, keep, take
        known = dataset.column_names
        self.columns = Columns(name, fields, list(known) if known else None)

    def read(self, indices: np.ndarray) -> list[Row]:
        raise TypeError("a stream can only be scanned")

    def scan(self, start: int) -> Iterator[Row]:
        kept = 0
        for number, values in enumerate(self.dataset):
            if self.keep != (0.0, 1.0):
                place = float(share(np.array([number]), SPLIT_KEY)[0])
                if not self.keep[0] <= place < self.keep[1]:
                    continue
            if self.take is not None and kept >= self.take:
                return
            kept += 1
            if kept > start:
                yield self.columns.row(number, values)


def open_splits(config: SourceConfig, fields: dict[str, str], names: dict[str, str] | None = None) -> dict[str, Source]:
    """Open every split there is, among train, validation and test.

    Args:
        config: what to read.
        fields: ``{our field: column}``.
        names: how splits are called in ids and messages, where not by their own name.

    Raises:
        ConfigError: nothing at that path, or columns it does not have; one line.
        DataError: content that cannot be read.
    """
    path = config.path
    if isinstance(path, str) and path.startswith("hf:"):
        opened, fingerprint = open_hub(path[3:], config), f"hub:{path[3:]}:{config.hub_config}"
    else:
        groups, kind = files.find(path, config.format)
        opened, fingerprint = files.load(groups, kind, config.text_unit, config.streaming), files.fingerprint(groups)
    fingerprint = hashlib.sha256(f"{fingerprint}|{config}".encode()).hexdigest()[:16]
    splits: dict[str, Source] = {}
    fraction = 0.0 if "validation" in opened else config.validation_fraction
    for name, dataset in opened.items():
        if fraction and name == "train":
            splits |= hash_split(dataset, fields, fingerprint, fraction, config.take)
        elif hasattr(dataset, "__len__"):
            taken = dataset.select(range(min(config.take, len(dataset)))) if config.take else dataset
            splits[name] = IndexedSource((names or {}).get(name, name), taken, fields, fingerprint)
        else:
            splits[name] = StreamSource((names or {}).get(name, name), dataset, fields, fingerprint, take=config.take)
    return splits


def hash_split(
    dataset: Any, fields: dict[str, str], fingerprint: str, fraction: float, take: int | None
) -> dict[str, Source]:
    """Hold out a share of the rows for validation, by a stable hash of their number."""
    if not hasattr(dataset, "__len__"):
        kept = StreamSource("train", dataset, fields, fingerprint, (fraction, 1.0), take)
        held = StreamSource("validation", dataset, fields, fingerprint, (0.0, fraction), take)
        return {"train": kept, "validation": held}
    rows = min(len(dataset), take) if take else len(dataset)
    places = share(np.arange(rows), SPLIT_KEY)
    held_rows = np.flatnonzero(places < fraction)
    if not len(held_rows):  # a tiny corpus still gets one row to look at
        held_rows = np.array([int(places.argmin())]) if rows > 1 else np.array([], dtype=np.int64)
    kept_rows = np.setdiff1d(np.arange(rows), held_rows)
    if not len(kept_rows):
        raise DataError("the train data has no rows")
    splits: dict[str, Source] = {"train": IndexedSource("train", dataset.select(kept_rows), fields, fingerprint)}
    if len(held_rows):
        splits["validation"] = IndexedSource("validation", dataset.select(held_rows), fields, fingerprint)
    return splits


def open_hub(name: str, config: SourceConfig) -> dict[str, Any]:
    """A dataset of the Hub, or one saved with ``save_to_disk``.

    Raises:
        ConfigError: it cannot be found or needs code of its own.
    """
    import datasets

    files.quieten()
    try:
        if Path(name).is_dir():
            found = datasets.load_from_disk(name)
            found = found if isinstance(found, dict) else {"train": found}
        else:
            found = datasets.load_dataset(name, config.hub_config, streaming=config.streaming)
    except Exception as error:  # the library raises a dozen kinds for "not to be had"
        raise ConfigError(f"cannot open hf:{name}: {str(error).splitlines()[0] if str(error) else error!r}") from error
    aliases = {"validation": "validation", "valid": "validation", "dev": "validation", "train": "train", "test": "test"}
    return {aliases[split]: dataset for split, dataset in found.items() if split in aliases}
