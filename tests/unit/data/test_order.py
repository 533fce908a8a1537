"""The order of rows: each once an epoch, another order each epoch, and the same one from any place."""

from __future__ import annotations

import numpy as np
import pytest
from corpora import ListSource
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nlp.data.order.blocks import BLOCKS_PER_LANE, BlockOrder
from lightning_nlp.errors import DataError


def make(num_rows, *, stream=False, seed=3, shuffle=True, block_rows=256, lanes=16, fingerprint="f00d", **more):
    source = ListSource(({"n": n} for n in range(num_rows)), stream=stream, fingerprint=fingerprint)
    return BlockOrder(source, seed=seed, shuffle=shuffle, block_rows=block_rows, lanes=lanes, **more)


def epoch(order, number):
    """All rows of an epoch, block after block."""
    return np.concatenate([order.rows(number * order.n_blocks + block) for block in range(order.n_blocks)])


def read(order, block):
    reader = order.reader(block)
    return [row["n"] for row in reader.read(0, len(reader))]


def assert_each_once(order, num_rows):
    for number in (0, 1, 7):
        assert np.array_equal(np.sort(epoch(order, number)), np.arange(num_rows))


@pytest.mark.parametrize("block_rows", [1, 3, 16, 256])
@pytest.mark.parametrize("lanes", [1, 2, 16])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 15, 16, 17, 64, 100, 1000])
def test_each_row_once_an_epoch(num_rows, lanes, block_rows):
    order = make(num_rows, lanes=lanes, block_rows=block_rows)
    assert_each_once(order, num_rows)
    sizes = [len(order.rows(block)) for block in range(order.n_blocks)]
    assert max(sizes) <= order.block_rows <= block_rows
    assert min(sizes) >= 1
    assert order.n_blocks >= min(num_rows, lanes * BLOCKS_PER_LANE)
    assert order.epoch_rows == num_rows


@settings(max_examples=80, deadline=None)
@given(
    num_rows=st.integers(1, 700),
    lanes=st.integers(1, 9),
    block_rows=st.integers(1, 300),
    chunk_rows=st.integers(1, 40),
    seed=st.integers(-5, 2**63),
)
def test_each_row_once_an_epoch_for_any_sizes(num_rows, lanes, block_rows, chunk_rows, seed):
    assert_each_once(make(num_rows, lanes=lanes, block_rows=block_rows, chunk_rows=chunk_rows, seed=seed), num_rows)
    plain = make(num_rows, lanes=lanes, block_rows=block_rows, chunk_rows=chunk_rows, shuffle=False)
    assert np.array_equal(epoch(plain, 2), np.arange(num_rows))


def test_each_row_once_where_no_array_of_chunks_is_made():
    order = make(1_100_003, lanes=1, block_rows=65_536)
    assert order.n_chunks > 65_536
    assert np.array_equal(np.sort(epoch(order, 1)), np.arange(1_100_003))


def test_epochs_and_seeds_differ():
    orders = [make(500, lanes=4, seed=seed) for seed in (1, 2)]
    found = [epoch(order, number) for order in orders for number in (0, 1)]
    for place, one in enumerate(found):
        for other in found[:place]:
            assert (one == other).mean() < 0.05
    assert np.array_equal(found[1], epoch(make(500, lanes=4, seed=1), 1))
    first_blocks = [set(orders[0].rows(number * orders[0].n_blocks).tolist()) for number in (0, 1)]
    assert first_blocks[0] != first_blocks[1]  # blocks hold other rows, not the same ones in another order


def test_a_block_does_not_depend_on_what_was_read_before():
    straight, jumping = make(300, lanes=2), make(300, lanes=2)
    expected = {block: read(straight, block) for block in range(20)}
    assert {block: read(jumping, block) for block in (19, 3, 0, 7)} == {b: expected[b] for b in (19, 3, 0, 7)}


def test_a_reader_reads_in_parts():
    reader = make(400, lanes=1).reader(2)
    whole = reader.read(0, len(reader))
    assert [row for start in range(0, len(reader), 7) for row in reader.read(start, start + 7)] == whole
    assert reader.read(len(reader), len(reader) + 5) == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("num_rows", [1, 5, 16, 100])
def test_without_shuffling_the_order_is_that_of_the_source(num_rows, stream):
    order = make(num_rows, stream=stream, shuffle=False, lanes=2, block_rows=8)
    found, block = [], 0
    while len(found) < 3 * num_rows:
        found += read(order, block)
        block += 1
    assert found == 3 * list(range(num_rows))


@pytest.mark.parametrize("lanes", [1, 3, 16])
@pytest.mark.parametrize("num_rows", [1, 7, 8, 9, 64, 100])
def test_stream_each_row_once_an_epoch(num_rows, lanes):
    order = make(num_rows, stream=True, block_rows=8, lanes=lanes)
    assert order.n_blocks is None
    assert order.epoch_rows is None
    n_blocks = -(-num_rows // 8)
    epochs = [[row for block in range(n_blocks) for row in read(order, e * n_blocks + block)] for e in range(3)]
    assert order.n_blocks == n_blocks
    assert order.epoch_rows == n_blocks * 8
    for rows in epochs:
        assert sorted(rows) == list(range(num_rows))
    if num_rows > 8:
        assert epochs[0] != epochs[1]
        assert epochs[1] != epochs[2]
    assert len(order.source.scans) == (4 if num_rows % 8 else 3)  # a short block tells that the next pass begins


@pytest.mark.parametrize("target", [0, 1, 4, 12, 13, 14, 30])
def test_stream_going_back_gives_the_same_rows(target):
    order = make(100, stream=True, block_rows=8, lanes=2)
    expected = [read(order, block) for block in range(40)]
    assert order.n_blocks == 13
    assert read(order, target) == expected[target]
    assert read(order, target + 2) == expected[target + 2]


def test_stream_going_back_before_its_length_is_known():
    order = make(100, stream=True, block_rows=8, lanes=1)
    expected = [read(order, block) for block in range(5)]
    assert [read(order, block) for block in (1, 2)] == expected[1:3]
    assert order.n_blocks is None


def test_stream_keeps_what_a_slow_lane_still_needs():
    order = make(100, stream=True, block_rows=8, lanes=2)
    order.claim(0, 0)
    order.claim(1, 1)
    ahead = [read(order, block) for block in range(0, 26, 2)]
    behind = [read(order, block) for block in range(1, 26, 2)]
    assert len(order.source.scans) == 3  # two passes, and the next one begun: none for the lane behind
    first = [row for pair in zip(ahead, behind, strict=True) for rows in pair for row in rows][:100]
    assert sorted(first) == list(range(100))
    assert order._stream._kept == {}


def test_stream_keeps_nothing_for_lanes_of_other_ranks():
    order = make(100, stream=True, block_rows=8, lanes=4)
    order.claim(1, 1)
    assert [len(read(order, block)) for block in (1, 5, 9, 13)] == [8] * 4
    assert order._stream._kept == {}


def test_stream_continues_from_a_saved_place_without_reading_what_lies_before():
    straight = make(100, stream=True, block_rows=8, lanes=2)
    expected = [read(straight, block) for block in range(40)]
    order = make(100, stream=True, block_rows=8, lanes=2)
    for lane, block in ((0, 30), (1, 29)):
        order.claim(lane, block, 13)
    assert [read(order, block) for block in (29, 30, 31, 32)] == expected[29:33]
    assert order.source.scans == [3 * 8]


def test_an_empty_stream_is_refused():
    with pytest.raises(DataError, match="the train data has no rows"):
        make(0, stream=True).reader(0)


@pytest.mark.parametrize("later", [0, 8, 23])
def test_a_stream_that_changes_is_refused(later):
    order = make(40, stream=True, block_rows=8, lanes=1)
    for block in range(6):
        read(order, block)
    del order.source.rows[later:]
    with pytest.raises(DataError, match="another number of rows"):
        for block in range(6, 20):
            read(order, block)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "change", [{"seed": 4}, {"shuffle": False}, {"block_rows": 128}, {"lanes": 8}, {"fingerprint": "beef"}], ids=str
)
def test_the_fingerprint_names_every_setting(change, stream):
    before, after = (make(10_000, stream=stream, **kwargs).fingerprint() for kwargs in ({}, change))
    assert make(10_000, stream=stream).fingerprint() == before
    parts = [dict(part.split("=", 1) for part in line.split()) for line in (before, after)]
    name = next(iter(change)).replace("fingerprint", "source")
    changed = {key for key in parts[0] if parts[0][key] != parts[1][key]}
    assert {name} <= changed <= {name, "block_rows"}  # a small corpus is cut finer for more lanes


def test_the_fingerprint_names_the_chunk_size():
    one, two = (make(10_000, block_rows=128, chunk_rows=rows) for rows in (16, 8))
    assert not np.array_equal(epoch(one, 0), epoch(two, 0))
    assert one.fingerprint() != two.fingerprint()
