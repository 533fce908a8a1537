"""Where text comes from: local files, the Hugging Face Hub, saved datasets, sample builders; one interface.

Local files are read here, because only so does a row have a place to jump to and a bad one cost no other; datasets of
the Hub and saved ones are the business of the ``datasets`` library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from lightning_nlp.data.sources import files
from lightning_nlp.data.sources.bad_rows import FILTERED, STRICT, BadRow, BadRows, Extra, Policy
from lightning_nlp.data.sources.columns import Columns, Row
from lightning_nlp.data.sources.filters import Filter
from lightning_nlp.data.sources.hub import DatasetRows, open_hub
from lightning_nlp.data.sources.pairs import partner
from lightning_nlp.data.sources.reading import Files, ReadingConfig
from lightning_nlp.data.sources.repeated_ids import repeated
from lightning_nlp.data.sources.retry import Attempts, transient
from lightning_nlp.data.sources.splitting import hash_split
from lightning_nlp.data.sources.streams import HubFeed, Mark, RowsFeed, StreamSource
from lightning_nlp.errors import ConfigError, DataError

Format = Literal["auto", "text", "jsonl", "csv", "tsv", "parquet", "arrow"]


@dataclass(frozen=True)
class SourceConfig:
    """What to read. See :class:`lightning_nlp.data.module.TextDataModule` for the meaning of each field."""

    path: str | list[str]
    format: Format = "auto"
    text_unit: Literal["document", "paragraph", "line"] = "document"
    hub_config: str | None = None
    streaming: bool = False
    validation_fraction: float = 0.05
    take: int | None = None
    pair: list[str] | None = None
    target_path: str | None = None
    filters: list[Filter] | None = None
    bad_rows: Policy = "error"
    bad_rows_budget: float = 0.01
    also_bad: list[Extra] | None = None
    reading: ReadingConfig = ReadingConfig()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(f"data.validation_fraction must be in [0, 1), not {self.validation_fraction}")
        if self.take is not None and self.take < 1:
            raise ConfigError(f"data.take must be at least 1, not {self.take}")
        if self.pair is not None and len(self.pair) != 2:
            raise ConfigError(f"data.pair holds two endings, such as [en, de], not {self.pair}")
        if self.pair is not None and self.target_path is not None:
            raise ConfigError("data.pair and data.target_path say the same: give one")
        if self.streaming and "duplicate_id" in (self.also_bad or ()):
            raise ConfigError("data.also_bad duplicate_id needs data.streaming false: a stream cannot be read first")

    @property
    def policy(self) -> BadRows:
        """What to do about bad rows."""
        return BadRows(self.bad_rows, self.bad_rows_budget, frozenset(self.also_bad or ()))


class Source(Protocol):
    """Rows of one split. ``num_rows`` is None for a stream, which can only be scanned.

    A row holds our fields, its ``id`` and its ``number`` in the files; or, where it cannot be used and the policy is
    not to stop at once, ``bad`` instead of fields. Readers go through
    :func:`~lightning_nlp.data.sources.bad_rows.examine` or :func:`~lightning_nlp.data.sources.bad_rows.usable`.
    """

    name: str
    num_rows: int | None
    fingerprint: str

    def read(self, indices: np.ndarray) -> list[Row]:
        """Rows by number, in the order asked for."""

    def scan(self, start: int, mark: Mark | None = None) -> Iterator[Row]:
        """Rows from ``start`` on. What it returns may have ``mark()``, which then helps a later scan to begin there."""


class Numbered(Protocol):
    """Rows of a split by number, before they are mapped to our fields."""

    def __len__(self) -> int:
        """How many."""

    def read(self, numbers: np.ndarray) -> list[Any]:
        """Values, or what is wrong with them."""

    def place(self, number: int, line: int = 0) -> str:
        """Where a row stands, for a message."""


class IndexedSource:
    """Random access to rows.

    Args:
        name: of the split.
        rows: all of them, by number.
        columns: maps them.
        fingerprint: of the content.
        numbers: of the rows in the split, where these are not all.
        bad_rows: what to do about rows that cannot be used.
        retries: failures in a row after which to give up.

    Raises:
        DataError: there are none.
    """

    def __init__(
        self,
        name: str,
        rows: Numbered,
        columns: Columns,
        fingerprint: str,
        numbers: np.ndarray | None = None,
        *,
        size: int | None = None,
        bad_rows: BadRows = STRICT,
        retries: int = 5,
    ) -> None:
        self.name, self.rows, self.columns, self.fingerprint, self.numbers = name, rows, columns, fingerprint, numbers
        self.bad_rows, self._retries = bad_rows, retries
        self.num_rows: int | None = min(len(rows), size or len(rows)) if numbers is None else len(numbers)
        if not self.num_rows:
            raise DataError(f"the {name} data has no rows")
        self._repeated = frozenset[int]()
        if "duplicate_id" in bad_rows.also:
            self._repeated = repeated(self.scan(0))

    def read(self, indices: np.ndarray) -> list[Row]:
        indices = np.asarray(indices)
        numbers = indices if self.numbers is None else np.asarray(self.numbers[indices])
        try:
            found = Attempts(self._retries).call(lambda: self.rows.read(numbers))
        except Exception as error:  # sorted out by its kind
            if transient(error):
                raise DataError(f"reading the {self.name} data failed {self._retries + 1} times: {error}") from error
            raise
        return [self._row(number, values) for number, values in zip(numbers.tolist(), found, strict=True)]

    def _row(self, number: int, values: Any) -> Row:
        row = self.columns.row(number, values)
        if number in self._repeated and "bad" not in row:
            row = {**row, "bad": BadRow("duplicate_id", f"an earlier row has the id '{row['id']}' too")}
        if "bad" in row and self.bad_rows.policy == "error" and row["bad"].kind != FILTERED:
            raise DataError(f"{self.place(number, row['bad'].line)}: {row['bad'].reason}")
        return row

    def place(self, number: int, line: int = 0) -> str:
        """Where row ``number`` of the files stands, for a message."""
        return self.rows.place(number, line)

    def scan(self, start: int, mark: Mark | None = None) -> Iterator[Row]:
        assert self.num_rows is not None
        for first in range(start, self.num_rows, 256):
            yield from self.read(np.arange(first, min(first + 256, self.num_rows)))


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
    wanted = tuple(sorted({*fields.values(), "id", *(each.column for each in config.filters or ())}))
    found = local_splits(config, wanted) if not is_hub(config) else hub_splits(config, wanted)
    fraction = 0.0 if "validation" in found.splits else config.validation_fraction
    # What the rows are, not where they lie: a corpus may be moved, or read on another machine, within one run.
    settings = f"{found.content}|{fields}|{config.streaming}|{fraction}|{config.take}"
    if config.filters:
        settings += f"|{config.filters}"
    fingerprint = hashlib.sha256(settings.encode()).hexdigest()[:16]
    retries, policy = config.reading.retries, config.policy
    splits: dict[str, Source] = {}
    for split, (rows, known) in found.splits.items():
        name = (names or {}).get(split, split)
        held = {"train": (fraction, 1.0), "validation": (0.0, fraction)} if fraction and split == "train" else {}
        mapped = {
            part: Columns(
                (names or {}).get(part, part),
                fields,
                known,
                optional,
                config.filters or (),
                policy.also,
                headed=found.headed,
            )
            for part in held or [name]
        }
        if config.streaming:
            for part, keep in (held or {name: (0.0, 1.0)}).items():
                splits[part if held else split] = StreamSource(
                    mapped[part].name, rows, mapped[part], fingerprint,
                    keep=keep, take=config.take, bad_rows=policy, retries=retries,
                )  # fmt: skip
            continue
        size = min(len(rows), config.take or len(rows))
        if size == 1 and held:
            hint = f": set data.text_unit to {found.smaller}" if found.smaller else ""
            raise ConfigError(f"data.path '{config.path}' is one single row, and none is left for validation{hint}")
        chosen = hash_split(size, fraction) if held else {name: None}
        for part, numbers in chosen.items():
            splits[part if held else split] = IndexedSource(
                mapped[part].name, rows, mapped[part], fingerprint, numbers, size=size, bad_rows=policy, retries=retries
            )
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


@dataclass(frozen=True)
class Found:
    """Splits before they are cut.

    Attributes:
        splits: rows and columns of each.
        content: what fixes it.
        smaller: the next smaller units of text.
        headed: names of columns are the first rows of files.
    """

    splits: dict[str, tuple[Any, list[str] | None]]
    content: str
    smaller: str = ""
    headed: bool = False


def is_hub(config: SourceConfig) -> bool:
    """A dataset of the Hub, or one that was saved."""
    return isinstance(config.path, str) and config.path.startswith("hf:")


def hub_splits(config: SourceConfig, wanted: tuple[str, ...]) -> Found:
    """Splits of a dataset of the Hub, or of a saved one."""
    assert isinstance(config.path, str)
    opened, content = open_hub(config.path[3:], config.hub_config, config.streaming)
    splits: dict[str, tuple[Any, list[str] | None]] = {}
    for split, dataset in opened.items():
        known = list(dataset.column_names) if dataset.column_names else None
        if not hasattr(dataset, "__len__"):
            splits[split] = HubFeed(dataset, split), known
            continue
        rows = DatasetRows(dataset, split, wanted)
        splits[split] = RowsFeed(rows.read, len(rows), rows.place) if config.streaming else rows, known
    return Found(splits, content)


def local_splits(config: SourceConfig, wanted: tuple[str, ...]) -> Found:
    """Splits of local files."""
    groups, kind = files.find(config.path, config.format, config.pair)
    targets = targets_of(groups, config)
    tolerant = config.bad_rows != "error"
    content = f"{files.fingerprint(groups)}|{kind}|{config.text_unit}"
    if targets:
        content += f"|{files.fingerprint(targets)}"
    if config.reading.column_names is not None or not config.reading.quotes:
        content += f"|{config.reading.column_names} {config.reading.quotes}"
    splits: dict[str, tuple[Any, list[str] | None]] = {}
    for split, paths in groups.items():
        found = Files(
            split, tuple(paths), kind, config.text_unit, wanted, config.reading, tuple(targets.get(split, ())), tolerant
        )
        if not config.streaming and not len(found):
            raise DataError(f"the {split} data has no rows: {paths[0]} holds none")
        splits[split] = found, found.columns
    smaller = {"document": "paragraph or line", "paragraph": "line"}.get(config.text_unit, "") if kind == "text" else ""
    return Found(splits, content, smaller, kind in ("csv", "tsv") and config.reading.column_names is None)


def targets_of(groups: files.Groups, config: SourceConfig) -> files.Groups:
    """Files aligned with those of the sources, by split.

    Raises:
        ConfigError: one is missing.
    """
    if config.pair is not None:
        return {split: [partner(path, config.pair) for path in paths] for split, paths in groups.items()}
    if config.target_path is None:
        return {}
    found, _ = files.find(config.target_path, "text")
    sizes = [{split: len(paths) for split, paths in group.items()} for group in (groups, found)]
    if sizes[0] != sizes[1]:
        raise ConfigError(f"data.target_path '{config.target_path}' has other files than data.path: {sizes[1]}")
    return found
