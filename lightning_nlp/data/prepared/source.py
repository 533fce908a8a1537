"""A split out of prepared shards: the rows of the source it was made from, with tokens in place of text."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nlp.data.prepared.shards import BAD, Shard
from lightning_nlp.data.sources.bad_rows import FILTERED, located, policy_of
from lightning_nlp.data.sources.source import Source
from lightning_nlp.data.sources.streams import Mark
from lightning_nlp.errors import DataError

OPEN_SHARDS = 128
"""Shards kept open at a time: each takes a few file descriptors, of which a process has some thousand."""


class PreparedSource:
    """Rows of one split, read in place. Nothing of the size of the data is held in memory.

    Args:
        folder: of the shards.
        split: what the set's manifest says of the split.
        texts: fields that hold text.
        dtype: of token ids.
        original: the source the shards were made from: the order of the data, and what is done about bad rows, is as
            there.
    """

    def __init__(self, folder: Path, split: dict[str, Any], texts: list[str], dtype: str, original: Source) -> None:
        self.folder, self.texts, self.dtype = folder, texts, dtype
        self.fingerprint, self.bad_rows, self._original = original.fingerprint, policy_of(original), original
        self.name: str = split["name"]
        self.rows: int = split["rows"]
        self.num_rows: int | None = None if split["stream"] else self.rows
        self.records: list[dict[str, Any]] = split["shards"]
        self.bad: int = sum(record["bad"] for record in self.records)
        self._firsts = np.array([record["first"] for record in self.records], dtype=np.int64)
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def shard(self, number: int) -> Shard:
        """A shard by number; the one not used for longest is closed where too many are open."""
        found = self._open.get(number)
        if found is None:
            found = self._open[number] = Shard(self.folder, self.records[number], self.dtype, self.texts)
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(number)
        return found

    def find(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the shard of every row, and its place there."""
        shards = np.searchsorted(self._firsts, indices, side="right") - 1
        return shards, indices - self._firsts[shards]

    def by_shard(self, indices: np.ndarray) -> Iterator[tuple[Shard, np.ndarray, np.ndarray]]:
        """Every shard that holds some of the rows: the shard, which of ``indices`` they are, their places in it."""
        if len(self.records) == 1:
            yield self.shard(0), np.arange(len(indices)), indices
            return
        shards, places = self.find(indices)
        numbers = np.unique(shards)
        if len(numbers) == 1:
            yield self.shard(int(numbers[0])), np.arange(len(indices)), places
            return
        for number in numbers.tolist():
            which = np.flatnonzero(shards == number)
            yield self.shard(number), which, places[which]

    def lengths(self, field: str, indices: np.ndarray) -> np.ndarray:
        """Tokens of a text field of many rows, int64."""
        found = np.empty(len(indices), dtype=np.int64)
        for shard, which, places in self.by_shard(indices):
            ends = shard.ends[field]
            found[which] = ends[places + 1].astype(np.int64) - ends[places]
        return found

    def filtered(self, indices: np.ndarray) -> np.ndarray:
        """Which of the rows, none of which is bad, a filter left out."""
        found = np.zeros(len(indices), dtype=bool)
        for shard, which, places in self.by_shard(indices):
            ends = shard.ends[BAD]
            found[which] = ends[places + 1] != ends[places]
        return found

    def longest(self, field: str) -> int:
        """Tokens of the longest document."""
        return max(int(np.diff(self.shard(number).ends[field]).max()) for number in range(len(self.records)))

    def read(self, indices: np.ndarray) -> list[dict[str, Any]]:
        shards, places = self.find(np.asarray(indices))
        rows = [self.shard(shard).row(place) for shard, place in zip(shards.tolist(), places.tolist(), strict=True)]
        if self.bad and self.bad_rows.policy == "error":
            for row in rows:
                if BAD in row and row[BAD].kind != FILTERED:
                    raise DataError(located(self, row, row[BAD]))
        return rows

    def place(self, number: int, line: int = 0) -> str:
        """Where row ``number`` of the files stands, for a message."""
        original: Any = self._original
        return str(original.place(number, line))

    def scan(self, start: int, mark: Mark | None = None) -> Iterator[dict[str, Any]]:
        for first in range(start, self.rows, 256):
            yield from self.read(np.arange(first, min(first + 256, self.rows)))
