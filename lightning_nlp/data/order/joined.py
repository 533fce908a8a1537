"""Several sources, one after the other, as one: what is evaluated, and read for a tokenizer, of a mixture."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np

from lightning_nlp.data.order.mixture import MixtureConfig
from lightning_nlp.data.sources.bad_rows import policy_of
from lightning_nlp.data.sources.source import Row, Source, SourceConfig, open_splits
from lightning_nlp.errors import ConfigError


class JoinedSource:
    """The rows of all parts, in the order of the parts; the ``origin`` of a row is the name of its part.

    Args:
        name: of the split.
        parts: the sources by name.
    """

    def __init__(self, name: str, parts: dict[str, Source]) -> None:
        self.name, self.parts = name, parts
        sizes = [part.num_rows for part in parts.values()]
        known = [size for size in sizes if size is not None]
        self.num_rows = sum(known) if len(known) == len(sizes) else None
        self._ends = np.cumsum(known) if self.num_rows is not None else None
        self.bad_rows = policy_of(next(iter(parts.values())))  # a setting of the data, the same for all
        content = "|".join(f"{name} {part.fingerprint}" for name, part in parts.items())
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]

    def read(self, indices: np.ndarray) -> list[Row]:
        assert self._ends is not None
        indices = np.asarray(indices)
        parts = np.searchsorted(self._ends, indices, side="right")
        rows: list[Row] = [{}] * len(indices)
        for number, (name, part) in enumerate(self.parts.items()):
            places = np.flatnonzero(parts == number)
            if len(places):
                start = self._ends[number - 1] if number else 0
                for place, row in zip(places.tolist(), part.read(indices[places] - start), strict=True):
                    rows[place] = {**row, "origin": name}
        return rows

    def scan(self, start: int, mark: dict[str, Any] | None = None) -> Iterator[Row]:
        if self._ends is None:
            yield from islice(chain.from_iterable(self.scan_part(name, 0) for name in self.parts), start, None)
            return
        for number, name in enumerate(self.parts):
            before = int(self._ends[number - 1]) if number else 0
            if start < self._ends[number]:
                yield from self.scan_part(name, max(start - before, 0))

    def scan_part(self, name: str, start: int) -> Iterator[Row]:
        """Rows of one part."""
        return ({**row, "origin": name} for row in self.parts[name].scan(start))


def rows_in_turn(source: Source) -> Iterator[Row]:
    """Rows of a source for what looks only at the first ones: one of each part, then the next of each, and so on."""
    scans = (
        [source.scan_part(name, 0) for name in source.parts] if isinstance(source, JoinedSource) else [source.scan(0)]
    )
    while scans:
        for rows in list(scans):
            if (row := next(rows, None)) is None:
                scans.remove(rows)
            else:
                yield row


def open_mixture(mixture: MixtureConfig, config: SourceConfig, fields: dict[str, str]) -> dict[str, Source]:
    """Open every source of a mixture; what a source does not say is as in ``config``.

    Raises:
        ConfigError: as of a single source, with the name of the one that is meant; or none of them has training data.
    """
    opened: dict[str, dict[str, Source]] = {}
    for name, source in mixture.sources.items():
        own = source.config(config)
        names = {split: f"{name}/{split}" for split in ("train", "validation", "test")}
        try:
            opened[name] = open_splits(own, {**fields, **source.columns}, names)
        except ConfigError as error:
            raise ConfigError(f"data.mixture.sources.{name}: {error}") from error
    for name, splits in opened.items():
        if "train" not in splits:
            raise ConfigError(f"data.mixture.sources.{name} has no training data")
    return {
        split: JoinedSource(split, {name: splits[split] for name, splits in opened.items() if split in splits})
        for split in ("train", "validation", "test")
        if any(split in splits for splits in opened.values())
    }
