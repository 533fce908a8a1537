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
    """The rows of all parts, in the order of the parts.

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
        for number, part in enumerate(self.parts.values()):
            places = np.flatnonzero(parts == number)
            if len(places):
                start = self._ends[number - 1] if number else 0
                for place, row in zip(places.tolist(), part.read(indices[places] - start), strict=True):
                    rows[place] = row
        return rows

    def in_turn(self) -> Iterator[Row]:
        """One row of each part, then the next of each, until all have ended: for what looks only at the first rows."""
        scans = [part.scan(0) for part in self.parts.values()]
        while scans:
            for rows in list(scans):
                if (row := next(rows, None)) is None:
                    scans.remove(rows)
                else:
                    yield row

    def scan(self, start: int, mark: dict[str, Any] | None = None) -> Iterator[Row]:
        if self._ends is None:
            yield from islice(chain.from_iterable(part.scan(0) for part in self.parts.values()), start, None)
            return
        for number, part in enumerate(self.parts.values()):
            before = int(self._ends[number - 1]) if number else 0
            if start < self._ends[number]:
                yield from part.scan(max(start - before, 0))


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
