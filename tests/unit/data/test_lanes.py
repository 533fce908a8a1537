"""Lanes lose nothing, repeat nothing, mix nothing, and go on from any row as if nothing had happened."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from corpora import APART, bucketed, documents, lane_documents, make_order, packed, prepare
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lightning_nlp.data.order.lanes import pack, single

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=40)
SIZES = {
    "lanes": st.integers(1, 5),
    "block_rows": st.integers(1, 9),
    "seed": st.integers(0, 99),
    "stream": st.booleans(),
}


def rows_until(lane, block):
    """Rows of a lane until it has left ``block`` behind; at least one."""
    rows = [lane.next()]
    while lane.documents.block <= block:
        rows.append(lane.next())
    return rows


def same(one, two):
    fields = ("tokens", "labels", "positions", "segments")
    return (
        one.ids == two.ids
        and one.bytes == two.bytes
        and all(np.array_equal(getattr(one, name), getattr(two, name)) for name in fields)
    )


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 40), **SIZES)
@example(lengths=[30], length=1, lanes=5, block_rows=1, seed=0, stream=False)
def test_packed_every_pair_once_an_epoch(lengths, length, lanes, block_rows, seed, stream):
    order = make_order(lengths, lanes=lanes, block_rows=block_rows, seed=seed, stream=stream)
    n_blocks = -(-len(lengths) // block_rows) if stream else order.n_blocks
    streams = []
    for lane in packed(order, length):
        rows = rows_until(lane, 2 * n_blocks)
        assert all(len(row.tokens) == len(row.labels) == length for row in rows)
        assert all((row.labels == row.tokens + 1).all() and (row.segments > 0).all() for row in rows)
        streams.append(np.concatenate([row.tokens for row in rows]).tolist())
    assert order.n_blocks == n_blocks
    for epoch in range(2):
        seen = Counter()
        for lane, tokens in enumerate(streams):
            sizes = [sum(row["pairs"] for row in rows) for rows in lane_documents(order, lane, 2)]
            seen.update(tokens[sum(sizes[:epoch]) : sum(sizes[: epoch + 1])])
        expected = [doc * APART + place for doc, pairs in enumerate(lengths) for place in range(pairs)]
        assert seen == Counter(expected)


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, length=st.integers(1, 40))
def test_packed_segments_and_positions(lengths, length):
    lane = packed(make_order(lengths, lanes=1), length)[0]
    carried = 0
    for _ in range(12):
        row = lane.next()
        owner, place = row.tokens // APART, row.tokens % APART
        starts = np.flatnonzero(np.r_[True, np.diff(row.tokens) != 1])
        assert row.segments.tolist() == np.cumsum(np.isin(np.arange(length), starts)).tolist()
        for number, (start, stop) in enumerate(zip(starts, [*starts[1:], length], strict=True)):
            assert row.positions[start:stop].tolist() == list(range(stop - start))
            assert len(set(owner[start:stop])) == 1
            assert place[start] == (carried if number == 0 else 0)
            name = f"d{owner[start]}"
            assert row.ids[number] == (f"{name}@{place[start]}" if place[start] else name)
        assert row.bytes == sum(lengths[owner[start]] for start in starts if place[start] == 0)
        carried = (place[-1] + 1) % lengths[owner[-1]]


def test_a_long_document_goes_on_in_the_next_rows():
    lane = packed(make_order([25], lanes=1), 10)[0]
    rows = [lane.next() for _ in range(3)]
    assert [row.tokens.tolist() for row in rows] == [[*range(10)], [*range(10, 20)], [*range(20, 25), *range(5)]]
    assert [row.ids for row in rows] == [["d0"], ["d0@10"], ["d0@20", "d0"]]
    assert rows[2].segments.tolist() == [1] * 5 + [2] * 5
    assert rows[2].positions.tolist() == [*range(5), *range(5)]
    assert [row.bytes for row in rows] == [25, 0, 25]  # a document's bytes count where it begins
    assert lane.documents.counts.documents == 1


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, kind=st.sampled_from(["packed", "bucketed"]), cut=st.integers(0, 60), **SIZES)
def test_restored_at_any_row(lengths, kind, cut, lanes, block_rows, seed, stream):
    def make():
        order = make_order(lengths, lanes=lanes, block_rows=block_rows, seed=seed, stream=stream)
        return packed(order, 13) if kind == "packed" else bucketed(order)

    whole, lane = make(), seed % lanes
    for _ in range(cut):
        whole[lane].next()
    state = dict(whole[lane].state())
    assert all(type(value) is int for part in (state, state["seen"]) for name, value in part.items() if name != "seen")
    expected = [whole[lane].next() for _ in range(30)]
    fresh, used = make()[lane], whole[lane]
    for again in (fresh, used):
        again.restore(state)
        assert all(same(again.next(), row) for row in expected)
        assert again.state() == {**whole[lane].state(), "blocks": again.state()["blocks"]}


@pytest.mark.parametrize("cut", [0, 1, 15, 16])
def test_state_right_after_restore_is_what_was_restored(cut):
    for make in (lambda order: packed(order, 7)[0], lambda order: bucketed(order)[0]):
        lane, used = (make(make_order([5] * 40, lanes=2)) for _ in range(2))
        for _ in range(cut):
            lane.next()
        for _ in range(30):
            used.next()
        used.restore(lane.state())
        assert used.state() == lane.state()


def test_what_is_left_of_a_packed_row_is_padding():
    one, two = prepare(documents([3, 5]))
    row = pack([(one, 1, 2), (two, 0, 3)], 8)
    assert row.tokens.tolist() == [1, 2, APART, APART + 1, APART + 2, 0, 0, 0]
    assert row.labels.tolist() == [2, 3, APART + 1, APART + 2, APART + 3, -100, -100, -100]
    assert row.segments.tolist() == [1, 1, 2, 2, 2, 0, 0, 0]
    assert (row.ids, row.bytes) == (["d0@1", "d1"], 5)
    alone = single(two)
    assert (alone.segments.tolist(), alone.ids, alone.bytes) == ([1] * 5, ["d1"], 5)
