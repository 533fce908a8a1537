"""Bucketed lanes, their padding, and what becomes of documents that are dropped or cut."""

from __future__ import annotations

from itertools import islice, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from corpora import ListSource, bucketed, documents, lane_documents, make_order, packed, prepare
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import classification
from lightning_nlp.errors import DataError


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40),
    window=st.integers(1, 20),
    batch=st.integers(1, 6),
    seed=st.integers(0, 99),
    lanes=st.integers(1, 5),
    block_rows=st.integers(1, 9),
    stream=st.booleans(),
)
def test_bucketed_every_example_once_an_epoch(lengths, window, batch, lanes, block_rows, seed, stream):
    order = make_order(lengths, lanes=lanes, block_rows=block_rows, seed=seed, stream=stream)
    for number, lane in enumerate(bucketed(order, window=window, batch=batch)):
        size = max(window // batch, 1) * batch
        windows = [[lane.next() for _ in range(size)] for _ in range(4)]
        found = [row.ids[0] for rows in windows for row in rows]
        expected = [row["id"] for rows in lane_documents(order, number, 4 * size * lanes) for row in rows][: 4 * size]
        for start in range(0, len(found), size):  # a window only changes the order within itself
            assert sorted(found[start : start + size]) == sorted(expected[start : start + size])
        for rows in windows:
            groups = [[len(row.tokens) for row in rows[i : i + batch]] for i in range(0, size, batch)]
            assert all(
                (row.segments == 1).all() and row.positions.tolist() == [*range(len(row.tokens))] for row in rows
            )
            assert all(group == sorted(group) for group in groups)
            ordered = sorted(groups)
            assert all(one[-1] <= two[0] for one, two in pairwise(ordered))


def test_bucketed_global_batches_need_little_padding():
    class Data(TextDataModule):
        packed = False

        def prepare(self, rows):
            return prepare(rows)

    draw = np.random.default_rng(0)
    lengths = np.clip(np.round(draw.lognormal(np.log(60), 0.8, 50_000)), 1, 512).astype(int)
    data = Data("nowhere", global_batch_size=32, lanes=16, seed=1)
    data.splits, data.tokenizer = {"train": ListSource(documents(lengths))}, SimpleNamespace(hash="0" * 64)
    data.train_dataloader()
    sizes = [[len(row.tokens) for row in rows] for rows in islice(data._stream, 1024)]
    assert {len(batch) for batch in sizes} == {32}
    assert np.mean([size for batch in sizes for size in batch]) == pytest.approx(lengths.mean(), rel=0.05)
    assert 1 - sum(map(sum, sizes)) / sum(32 * max(batch) for batch in sizes) <= 0.08


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("lanes", [1, 4])
@pytest.mark.parametrize("rows", [1, 3, 50])
@pytest.mark.parametrize("make", [lambda order: packed(order, 8), bucketed])
def test_where_every_document_is_dropped(make, rows, lanes, stream):
    for lane in make(make_order([0] * rows, lanes=lanes, stream=stream)):
        with pytest.raises(DataError, match="no document of the train data gives anything to learn from"):
            lane.next()


@pytest.mark.parametrize("make", [lambda order: packed(order, 4), lambda order: bucketed(order, window=4)])
def test_dropped_documents_are_counted(make):
    lane = make(make_order([4, 0, 4, 0, 4, 4], lanes=1, shuffle=False))[0]
    for _ in range(8):  # two epochs
        lane.next()
    assert lane.documents.counts.documents == 8
    assert lane.documents.counts.dropped == 4
    assert lane.documents.counts.truncated == 0


@pytest.mark.parametrize("lengths", [[9, 0, 9], [0, 0, 9, 0, 0, 0, 0, 9]])
def test_a_lane_goes_on_where_some_documents_are_dropped(lengths):
    for lane in packed(make_order(lengths, lanes=16), 8):
        for _ in range(200):
            lane.next()


def test_truncated_documents_are_counted_and_the_counts_restored():
    def cut(rows):
        return [classification([7] * row["pairs"], 1, row["id"], 5, None, None) for row in rows]

    def make():
        return bucketed(make_order([3, 9, 0, 5, 6, 3], lanes=1, shuffle=False), window=5, batch=1, how=cut)[0]

    lane = make()
    for _ in range(5):
        assert lane.next().labels == 1
    counts = lane.documents.counts
    assert (counts.documents, counts.dropped, counts.truncated, counts.tokens_cut) == (5, 1, 2, 5)
    again = make()
    again.restore(lane.state())
    assert again.documents.counts == counts


def test_a_lane_that_always_gets_the_same_useless_documents_gives_up():
    useful, useless = packed(make_order([9, 0] * 4, lanes=2, block_rows=1, shuffle=False), 8)
    assert useful.next().ids == ["d0"]
    with pytest.raises(DataError, match="lane 1 never gets a document of use from the train data: set fewer"):
        useless.next()
