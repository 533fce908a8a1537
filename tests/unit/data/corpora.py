"""Corpora made of numbers, in memory: every token of every document is told apart from every other one."""

from __future__ import annotations

import numpy as np

from lightning_nlp.data.objectives import causal_lm
from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.order.documents import SourceDocuments
from lightning_nlp.data.order.lanes import BucketedLane, PackedLane

APART = 10_000
"""Token ids of document ``n`` are ``n * APART`` and on; a label is its token plus one."""


class ListSource:
    """Rows in a list, as an indexed source or as a stream; ``scans`` has the start of every scan."""

    def __init__(self, rows, *, stream=False, name="train", fingerprint="f00d"):
        self.rows, self.name, self.fingerprint = list(rows), name, fingerprint
        self.num_rows = None if stream else len(self.rows)
        self.scans = []

    def read(self, indices):
        return [self.rows[int(index)] for index in indices]

    def scan(self, start):
        self.scans.append(start)
        return iter(self.rows[start:])


def documents(lengths):
    """One row a length; a document of length 0 gives nothing to learn from."""
    return [{"id": f"d{number}", "number": number, "pairs": int(pairs)} for number, pairs in enumerate(lengths)]


def prepare(rows):
    """As a language model does, without a tokenizer."""
    return [
        causal_lm(np.arange(row["pairs"] + 1) + row["number"] * APART, row["id"], row["pairs"], None, None)
        for row in rows
    ]


def make_order(lengths, *, lanes, block_rows=8, seed=0, stream=False, shuffle=True):
    source = ListSource(documents(lengths), stream=stream)
    return BlockOrder(source, seed=seed, shuffle=shuffle, block_rows=block_rows, lanes=lanes)


def packed(order, length):
    return [PackedLane(SourceDocuments(order, lane, order.lanes, prepare), length) for lane in range(order.lanes)]


def bucketed(order, *, window=8, batch=2, how=prepare):
    return [
        BucketedLane(
            SourceDocuments(order, lane, order.lanes, how),
            rows_per_window=window,
            rows_per_batch=batch,
            seed=order.seed,
        )
        for lane in range(order.lanes)
    ]


def lane_documents(order, lane, epochs):
    """Per epoch, the row numbers that a lane reads, in order: worked out from the blocks alone."""
    found = [[] for _ in range(epochs)]
    blocks = order.n_blocks or -(-len(order.source.rows) // order.block_rows)  # a stream may not know yet
    for block in range(lane, epochs * blocks, order.lanes):
        reader = order.reader(block)
        found[block // blocks] += reader.read(0, len(reader))
    return found
