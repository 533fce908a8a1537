"""Tokens of many pieces of documents at once, out of prepared shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from lightning_nlp.data.prepared.shards import Shard
from lightning_nlp.data.prepared.source import PreparedSource

Places = list[tuple[Shard, np.ndarray, np.ndarray]]
"""Where the documents of pieces are: shards, which of the pieces are in each, and their places there."""
LONG = 48
"""Tokens of a piece, on average, from which copying one after the other is faster than gathering all by index."""


@dataclass(frozen=True)
class Text:
    """How documents of a source become pairs.

    A document is ``[bos] ids [eos]``; pair ``j`` of it is its tokens ``j`` and ``j + 1``. A piece of a document begins
    at pair ``offset`` and has ``take`` pairs.

    Attributes:
        source: the rows.
        field: of the text.
        bos_id, eos_id: tokens around a document, where there are such.
        bytes_of: UTF-8 bytes that a token spells.
    """

    source: PreparedSource
    field: str
    bos_id: int | None
    eos_id: int | None
    bytes_of: Callable[[int], int]
    _sizes: dict[int, int] = dataclasses.field(default_factory=dict)

    @property
    def ends(self) -> int:
        """Special tokens around a document."""
        return (self.bos_id is not None) + (self.eos_id is not None)

    def fill(
        self,
        shards: Places,
        offset: np.ndarray,
        take: np.ndarray,
        start: np.ndarray,
        tokens: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        """Write inputs and labels of all pieces end to end; piece ``p`` begins at ``start[p]``.

        Labels are ids, one further on where there is no bos; inputs are the labels before them.
        """
        firsts = np.empty(len(start), dtype=np.int64)
        ended = np.empty(len(start), dtype=bool)
        spans: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for shard, which, places in shards:
            ends, ids = shard.ends[self.field], shard.tokens[self.field]
            base = ends[places].astype(np.int64)
            first = base + offset[which] + (self.bos_id is None)
            ended[which] = first + take[which] > ends[places + 1]  # the last label is eos
            firsts[which] = ids.take(first - 1, mode="clip")
            spans.append((ids, which, first))
        (copy if len(labels) >= LONG * len(start) else gather)(spans, take, start, labels)
        if self.eos_id is not None:
            labels[(start + take - 1)[ended]] = self.eos_id
        if self.bos_id is not None:
            firsts[offset == 0] = self.bos_id
        tokens[1:] = labels[:-1]
        tokens[start] = firsts

    def describe(self, shards: Places, offset: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """UTF-8 bytes that the labels of every piece's document spell, and the piece's id; ``first`` is its input."""
        sizes = np.empty(len(offset), dtype=np.int64)
        names: list[str] = []
        for shard, which, places in shards:
            sizes[which] = shard.sizes[self.field][places]
            names += shard.ids(places)
        if len(shards) > 1:
            order = np.argsort(np.concatenate([which for _, which, _ in shards]))
            names = [names[place] for place in order.tolist()]
        if self.bos_id is None:  # the first token is then predicted from nothing: never
            for token in np.unique(first).tolist():
                if token not in self._sizes:
                    self._sizes[token] = self.bytes_of(token)
            sizes -= np.array([self._sizes[token] for token in first.tolist()], dtype=np.int64)
        pairs: Iterator[tuple[str, int]] = zip(names, offset.tolist(), strict=True)
        return sizes, [f"{name}@{begin}" if begin else name for name, begin in pairs]


def copy(
    spans: list[tuple[np.ndarray, np.ndarray, np.ndarray]], take: np.ndarray, _: np.ndarray, to: np.ndarray
) -> None:
    """Ids of pieces, one piece after the other.

    Args:
        spans: of each shard: its ids (one more than there are), numbers of the pieces, where they begin there.
        take: ids of every piece.
        to: filled with them.
    """
    parts: list[np.ndarray] = [spans[0][0][:0]] * len(take)
    for ids, which, first in spans:
        stop = first + take[which]
        for piece, begin, end in zip(which.tolist(), first.tolist(), stop.tolist(), strict=True):
            parts[piece] = ids[begin:end]
    to[:] = np.concatenate(parts)  # widened all at once: a conversion for each piece costs as much as copying it


def gather(
    spans: list[tuple[np.ndarray, np.ndarray, np.ndarray]], take: np.ndarray, start: np.ndarray, to: np.ndarray
) -> None:
    """The same, all at once; piece ``p`` goes to ``start[p]``."""
    for ids, which, first in spans:
        lengths = take[which]
        at = np.cumsum(lengths) - lengths
        inside = np.arange(int(lengths.sum()))
        found = ids.take(inside + np.repeat(first - at, lengths), mode="clip")
        if len(spans) == 1:
            to[:] = found
        else:
            to[inside + np.repeat(start[which] - at, lengths)] = found
