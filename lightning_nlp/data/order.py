"""The endless sequence of shuffled blocks of rows: a function of seed, epoch and place, with nothing to remember."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import numpy as np

from lightning_nlp.data.permutation import generator, permute
from lightning_nlp.data.sources import Source
from lightning_nlp.errors import DataError

ORDER_VERSION = 1
"""Raised when the same settings would give another order."""
BLOCKS_PER_LANE = 4
"""A small corpus is cut finer, so that every lane has at least this many blocks an epoch (down to one row a block)."""
BLOCKS_KEPT_PER_LANE = 2
"""Of a stream: lanes drift apart by a block or so, and a block must wait until its lane asks for it."""


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
        self.n_blocks: int | None = None
        if source.num_rows is not None:
            block_rows = max(min(block_rows, source.num_rows // (lanes * BLOCKS_PER_LANE)), 1)
            self.chunk_rows = max(min(chunk_rows, block_rows // 4), 1)
            block_rows -= block_rows % self.chunk_rows
            self.n_chunks = -(-source.num_rows // self.chunk_rows)
            self.chunks_per_block = block_rows // self.chunk_rows
            self.n_blocks = -(-self.n_chunks // self.chunks_per_block)
        else:
            self.chunk_rows = block_rows
        self.block_rows = block_rows
        self._stream = StreamBlocks(source, block_rows, BLOCKS_KEPT_PER_LANE * lanes)

    def fingerprint(self) -> str:
        """Everything that fixes the order, as one line of ``name=value``."""
        values = {
            "version": ORDER_VERSION,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "block_rows": self.block_rows,
            "lanes": self.lanes,
            "source": self.source.fingerprint,
        }
        return " ".join(f"{name}={value}" for name, value in values.items())

    def locate(self, block: int) -> tuple[int, int]:
        """``(epoch, block of that epoch)``; reads a stream to its end when it must."""
        if self.n_blocks is None:
            if self._stream.has(block):
                return 0, block
            self.n_blocks = self._stream.n_blocks
            assert self.n_blocks is not None
        return divmod(block, self.n_blocks)

    def rows(self, block: int) -> np.ndarray:
        """Row numbers of a block of an indexed source, in the order they are read."""
        assert self.source.num_rows is not None
        epoch, number = self.locate(block)
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
        epoch, number = self.locate(block)
        found = self._stream.read(number)
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
    """Consecutive blocks of a stream. Lanes ask for near ones, so a few are kept; going back scans again."""

    def __init__(self, source: Source, block_rows: int, keep: int) -> None:
        self.source, self.block_rows, self.keep = source, block_rows, keep
        self.n_blocks: int | None = None
        self._cache: OrderedDict[int, list[dict[str, Any]]] = OrderedDict()
        self._scan: Iterator[dict[str, Any]] | None = None
        self._next = 0

    def has(self, block: int) -> bool:
        """Whether the stream reaches block ``block``; learns ``n_blocks`` when it does not."""
        if self.n_blocks is not None:
            return block < self.n_blocks
        if block in self._cache or block < self._next:
            return True
        return self._advance_to(block)

    def read(self, block: int) -> list[dict[str, Any]]:
        """Rows of block ``block`` in the stream's order."""
        if block not in self._cache and not self._advance_to(block):
            raise IndexError(f"block {block} is beyond the end of the stream")
        self._cache.move_to_end(block)
        return self._cache[block]

    def _advance_to(self, block: int) -> bool:
        if self._scan is None or block < self._next:
            self._next = block
            self._scan = self.source.scan(block * self.block_rows)
        while self._next <= block:
            rows = [row for row, _ in zip(self._scan, range(self.block_rows), strict=False)]
            if rows:
                self._cache[self._next] = rows
                while len(self._cache) > self.keep:
                    self._cache.popitem(last=False)
                self._next += 1
            if len(rows) < self.block_rows:
                if self._next == 0:
                    raise DataError(f"the {self.source.name} data has no rows")
                self.n_blocks, self._scan = self._next, None
                return block < self.n_blocks
        return True
