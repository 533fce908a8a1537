"""The endless sequence of shuffled blocks of rows: a function of seed, epoch and place, with nothing to remember."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from lightning_nlp.data.permutation import generator, permute
from lightning_nlp.data.sources.source import Source
from lightning_nlp.data.sources.streams import Mark
from lightning_nlp.errors import DataError

ORDER_VERSION = 1
"""Raised when the same settings would give another order."""
BLOCKS_PER_LANE = 4
"""A small corpus is cut finer, so that every lane has at least this many blocks an epoch (down to one row a block)."""


class BlockOrder:
    """Block ``g`` of the endless sequence; ``g = epoch * n_blocks + b``.

    With a known number of rows, chunks of consecutive rows are permuted over the corpus by (seed, epoch), a block is a
    run of them, and its rows are shuffled by (seed, epoch, b). A stream is cut into blocks as it comes, each shuffled
    by the same key; how many there are is known after its first pass.

    Args:
        source: the rows.
        seed: of the order.
        shuffle: False keeps the source's order.
        block_rows: rows shuffled together, at most.
        lanes: streams the blocks are dealt to.
        chunk_rows: consecutive rows that stay in one block, at most.
    """

    def __init__(
        self, source: Source, *, seed: int, shuffle: bool, block_rows: int, lanes: int, chunk_rows: int = 16
    ) -> None:
        self.source, self.seed, self.shuffle, self.lanes = source, seed, shuffle, lanes
        self._n_blocks: int | None = None
        if source.num_rows is not None:
            block_rows = max(min(block_rows, source.num_rows // (lanes * BLOCKS_PER_LANE)), 1)
            self.chunk_rows = max(min(chunk_rows, block_rows // 4), 1)
            block_rows -= block_rows % self.chunk_rows
            self.n_chunks = -(-source.num_rows // self.chunk_rows)
            self.chunks_per_block = block_rows // self.chunk_rows
            self._n_blocks = -(-self.n_chunks // self.chunks_per_block)
        else:
            self.chunk_rows = 1
        self.block_rows = block_rows
        self._stream = StreamBlocks(source, block_rows, lanes)

    @property
    def n_blocks(self) -> int | None:
        """Blocks in an epoch; None for a stream that has not been read to its end yet."""
        return self._n_blocks if self.source.num_rows is not None else self._stream.n_blocks

    @property
    def epoch_rows(self) -> int | None:
        """Rows in an epoch (of a stream: rounded up to whole blocks), where known."""
        if self.source.num_rows is not None or self.n_blocks is None:
            return self.source.num_rows
        return self.n_blocks * self.block_rows

    def claim(self, lane: int, block: int, n_blocks: int = 0, mark: Mark | None = None) -> None:
        """Lane ``lane`` goes on at ``block``: what a stream passes on its way there is kept for it.

        Args:
            lane: number of the lane.
            block: the next one it will read.
            n_blocks: blocks in an epoch of a stream, where a saved state knows (0: unknown).
            mark: where that block begins in a stream, where a saved state knows.
        """
        self._stream.claim(lane, block, mark)
        if n_blocks and self.source.num_rows is None:
            self._stream.n_blocks = n_blocks

    def mark(self, block: int) -> Mark | None:
        """Where a block of a stream begins, for as long as its lane reads it; None where there is no such thing."""
        return self._stream.mark(block)

    def fingerprint(self) -> str:
        """Everything that fixes the order, as one line of ``name=value``."""
        values = {
            "version": ORDER_VERSION,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "block_rows": self.block_rows,
            "chunk_rows": self.chunk_rows,
            "lanes": self.lanes,
            "source": self.source.fingerprint,
        }
        return " ".join(f"{name}={value}" for name, value in values.items())

    def rows(self, block: int) -> np.ndarray:
        """Row numbers of a block of an indexed source, in the order they are read."""
        assert self.source.num_rows is not None and self._n_blocks is not None
        epoch, number = divmod(block, self._n_blocks)
        first = number * self.chunks_per_block
        chunks = np.arange(first, min(first + self.chunks_per_block, self.n_chunks))
        if self.shuffle:
            chunks = permute(chunks, self.n_chunks, (self.seed, epoch))
        rows = (chunks[:, None] * self.chunk_rows + np.arange(self.chunk_rows)).ravel()
        rows = rows[rows < self.source.num_rows]
        return generator(self.seed, epoch, number).permutation(rows) if self.shuffle else rows

    def reader(self, block: int) -> BlockReader:
        """The rows of a block, to be read in parts."""
        if self.source.num_rows is not None:
            return BlockReader(self.source, self.rows(block))
        found = self._stream.read(block)
        epoch, number = divmod(block, self.n_blocks) if self.n_blocks else (0, block)
        order = generator(self.seed, epoch, number).permutation(len(found)) if self.shuffle else range(len(found))
        return BlockReader(None, [found[place] for place in order])


class BlockReader:
    """Rows of one block by place."""

    def __init__(self, source: Source | None, rows: Any) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, start: int, stop: int) -> list[dict[str, Any]]:
        """Rows ``start`` to ``stop`` of the block's order."""
        part = self._rows[start:stop]
        return self._source.read(part) if self._source is not None else list(part)


class StreamBlocks:
    """Consecutive blocks of a stream, numbered on through its passes.

    Lanes drift apart, so that a block may be passed long before its lane asks for it: a passed block is kept until
    then. Asking for one that went by scans the stream again, from the first block that any lane still needs. Where the
    stream says where it stands, that is held for the blocks that lanes read, so that a scan begins at the block itself.
    """

    def __init__(self, source: Source, block_rows: int, lanes: int) -> None:
        self.source, self.block_rows, self.lanes = source, block_rows, lanes
        self.n_blocks: int | None = None
        self._wanted: dict[int, int] = {}
        self._kept: dict[int, list[dict[str, Any]]] = {}
        self._marks: dict[int, Mark] = {}
        self._scan: Iterator[dict[str, Any]] | None = None
        self._next = 0
        self._empty_pass = True

    def claim(self, lane: int, block: int, mark: Mark | None = None) -> None:
        """Keep blocks of ``lane`` from ``block`` on, which begins at ``mark``."""
        self._wanted[lane] = block
        self._kept = {g: rows for g, rows in self._kept.items() if g % self.lanes != lane or g >= block}
        self._marks = {g: at for g, at in self._marks.items() if g % self.lanes != lane or g >= block}
        if mark is not None:
            self._marks[block] = mark

    def mark(self, block: int) -> Mark | None:
        """Where ``block`` begins, where that is held."""
        return self._marks.get(block)

    def read(self, block: int) -> list[dict[str, Any]]:
        """Rows of block ``block``, in the stream's order; its lane is expected to ask for its next one then.

        Raises:
            DataError: the stream is empty, or has another number of rows than in the pass before.
        """
        lane = block % self.lanes
        self.claim(lane, block)
        if block not in self._kept and (self._scan is None or block < self._next):
            self._start(min(g for g in self._wanted.values() if g not in self._kept))
        while block not in self._kept:
            self._advance()
        self._wanted[lane] = block + self.lanes
        return self._kept.pop(block)

    def _start(self, block: int) -> None:
        """Scan from ``block``, or from the beginning as long as neither its place nor the length of a pass is known."""
        mark = self._marks.get(block)
        self._next = block if self.n_blocks or mark is not None else 0
        start = (self._next % self.n_blocks if self.n_blocks else self._next) * self.block_rows
        self._scan = self.source.scan(start) if mark is None else self.source.scan(start, mark)

    def _advance(self) -> None:
        """Read one block, and go over to the next pass when the stream ends."""
        assert self._scan is not None
        wanted = self._wanted.get(self._next % self.lanes, self._next + 1) <= self._next
        if wanted and hasattr(self._scan, "mark"):
            self._marks[self._next] = self._scan.mark()
        rows = list(islice(self._scan, self.block_rows))
        if rows:
            if wanted:
                self._kept[self._next] = rows
            self._next += 1
            self._empty_pass = False
        if len(rows) < self.block_rows:
            if not self._next:
                raise DataError(f"the {self.source.name} data has no rows")
            self.n_blocks = self.n_blocks or self._next
            if self._next % self.n_blocks or self._empty_pass:
                raise DataError(f"the {self.source.name} data changed: a second pass has another number of rows")
            self._scan, self._empty_pass = self.source.scan(0), True
