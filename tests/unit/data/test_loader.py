"""Global batches do not know how many ranks there are, nor do their states."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from corpora import ListSource, documents, prepare

from lightning_nlp.data.order.arithmetic import accumulation, batch_size
from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.order.documents import SourceDocuments
from lightning_nlp.data.order.lanes import BucketedLane, PackedLane
from lightning_nlp.data.order.stream import SNAPSHOTS, TrainStream
from lightning_nlp.errors import ConfigError

LENGTHS = [int(size) for size in np.random.default_rng(3).integers(0, 25, 70)]
KINDS = ["packed", "bucketed", "packed stream"]
SHARES = [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2), (4, 1)]
"""Ranks and micro-batches of a global batch of 8."""


def make(kind, ranks=1, rank=0, micro_batch=1, *, lanes=4, global_batch=8, ramp=None, seed=5, length=12):
    source = ListSource(documents(LENGTHS), stream=kind.endswith("stream"))
    order = BlockOrder(source, seed=seed, shuffle=True, block_rows=8, lanes=lanes)

    def lane(number):
        if kind.startswith("packed"):
            return PackedLane(SourceDocuments(order, number, lanes, prepare), length)
        return BucketedLane(
            SourceDocuments(order, number, lanes, prepare), rows_per_window=6, rows_per_batch=2, seed=seed
        )

    size = batch_size(global_batch, None, ramp, micro_batch, None, length)
    return TrainStream(
        lane,
        n_lanes=lanes,
        global_batch=size.rows,
        data_ranks=ranks,
        rank=rank,
        micro_batches=accumulation(size, ranks, lanes),
        fingerprint=f"{order.fingerprint()} length={length}",
    )


def ranks_of(kind, ranks, micro_batch, **more):
    return [make(kind, ranks, rank, micro_batch, **more) for rank in range(ranks)]


def batches(streams, steps):
    """The next global batches, put together from all ranks: per step ``{row number: what is in the row}``."""
    found = []
    readers = [iter(stream) for stream in streams]
    for _ in range(steps):
        batch = {}
        for stream, reader in zip(streams, readers, strict=True):
            size = stream.global_batch.size(stream.step) // stream.data_ranks // stream.micro_batches
            for part in islice(reader, stream.micro_batches):
                assert len(part) == size
                for row in part:
                    assert row.number not in batch
                    assert row.number % stream.data_ranks == stream.rank
                    batch[row.number] = (row.ids, row.tokens.tolist(), row.positions.tolist(), row.bytes)
        found.append(batch)
    return found


def merged(streams, step):
    """What a checkpoint holds: the lanes of all ranks."""
    states = [stream.state(step) for stream in streams]
    return {**states[0], "lanes": {name: lane for state in states for name, lane in state["lanes"].items()}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("ranks", "micro_batch"), SHARES)
def test_global_batches_are_the_same_on_any_number_of_ranks(kind, ranks, micro_batch):
    expected = batches([make(kind, micro_batch=8)], 30)
    assert [sorted(batch) for batch in expected] == [list(range(8 * step, 8 * step + 8)) for step in range(30)]
    assert batches(ranks_of(kind, ranks, micro_batch), 30) == expected


@pytest.mark.parametrize(("lanes", "global_batch"), [(4, 4), (4, 16), (8, 4), (1, 4), (4, 1), (16, 4)])
def test_lanes_and_global_batch_in_any_proportion(lanes, global_batch):
    sizes = {"lanes": lanes, "global_batch": global_batch}
    expected = batches([make("packed", micro_batch=global_batch, **sizes)], 20)
    rows = {number: row for batch in expected for number, row in batch.items()}
    assert sorted(rows) == list(range(20 * global_batch))
    for lane in range(lanes):  # every lane is asked in turn
        alone = make("packed", **sizes).lanes[lane]
        assert [row[1] for number, row in sorted(rows.items()) if number % lanes == lane] == [
            alone.next().tokens.tolist() for _ in range(lane, len(rows), lanes)
        ]
    if lanes % 2 == 0 and global_batch % 2 == 0:
        assert batches(ranks_of("packed", 2, global_batch // 2, **sizes), 20) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [0, 1, 7, 23])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 2), (1, 4), (4, 1), (2, 4)])
def test_restored_on_another_number_of_ranks(kind, steps, before, after):
    first = ranks_of(kind, before, 2)
    batches(first, steps)
    state = merged(first, steps)
    expected = batches(first, 12)
    second = ranks_of(kind, after, 1)
    for stream in second:
        stream.restore(state)
        assert stream.step == steps
    assert merged(second, steps)["lanes"].keys() == state["lanes"].keys()
    assert batches(second, 12) == expected
    assert merged(second, steps + 12)["step"] == steps + 12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ago", range(SNAPSHOTS))
def test_state_of_a_step_some_batches_ago(kind, ago):
    stream = make(kind, micro_batch=4)
    before = batches([stream], 9 - ago)
    expected = batches([stream], ago) + batches([make_after(stream)], 6)
    assert len(before) + ago == stream.step == 9
    again = make(kind, micro_batch=4)
    again.restore(stream.state(9 - ago))
    assert batches([again], ago + 6) == expected
    with pytest.raises(KeyError):
        stream.state(9 - SNAPSHOTS)
    with pytest.raises(KeyError):
        stream.state(10)


def make_after(stream):
    """A new stream that stands where ``stream`` stands."""
    lane = next(iter(stream.lanes.values()))
    kind = "bucketed" if isinstance(lane, BucketedLane) else "packed"
    kind += " stream" if lane.documents.order.source.num_rows is None else ""
    again = make(kind, micro_batch=8 // stream.micro_batches)
    again.restore(stream.state(stream.step))
    return again


def test_state_within_a_global_batch_is_that_of_its_step():
    stream = make("packed", micro_batch=2)
    reader = iter(stream)
    for _ in range(4):
        next(reader)
    state = stream.state(1)
    next(reader)  # first micro-batch of the second step: its rows are drawn already
    assert stream.state(1) == state
    assert stream.step == 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 6}, "seed 5 -> 6"),
        ({"length": 16}, "length 12 -> 16"),
        ({"lanes": 8}, "lanes 4 -> 8"),
    ],
)
def test_another_order_is_refused(change, text):
    state = make("packed").state(0)
    with pytest.raises(ConfigError, match="the order of the data changed since the checkpoint: .*" + text) as caught:
        make("packed", **change).restore(state)
    assert "shuffle" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [("a=1 b=2", "a=1", "b 2 -> None"), ("a=1", "a=1 b=2", "b None -> 2"), ("a=1 b=2", "a=1 b=3", "b 2 -> 3")],
)
def test_settings_that_came_or_went_are_named(before, now, text):
    stream = make("packed")
    stream.fingerprint = now
    with pytest.raises(ConfigError, match=f"checkpoint: {text}$"):
        stream.restore({**stream.state(0), "order": before})


@pytest.mark.parametrize(
    "sizes",
    [
        {"ranks": 3},
        {"ranks": 2, "lanes": 1, "global_batch": 2},
        {"ranks": 2, "global_batch": 9, "lanes": 2},
        {"micro_batch": 3},
        {"ranks": 2, "micro_batch": 8},
        {"lanes": 4, "global_batch": 6},
        {"lanes": 6, "global_batch": 4},
    ],
    ids=str,
)
def test_sizes_that_do_not_divide_are_refused(sizes):
    with pytest.raises(ConfigError, match="divi"):
        make("packed", **sizes)
