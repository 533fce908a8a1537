"""How far a lane reads ahead, and when it gives up, has no influence on what it gives."""

from __future__ import annotations

import numpy as np
import pytest
from corpora import APART, ListSource, documents, prepare

from lightning_nlp.data.order import documents as documents_module
from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.order.documents import SourceDocuments
from lightning_nlp.data.order.lanes import BucketedLane, PackedLane
from lightning_nlp.errors import DataError

LENGTHS = np.clip(np.random.default_rng(0).lognormal(3, 1, 200).astype(int), 1, 400).tolist()


def make_lanes(kind, lengths=LENGTHS, *, lanes=2, stream=False, shuffle=True, how=prepare):
    order = BlockOrder(
        ListSource(documents(lengths), stream=stream), seed=1, shuffle=shuffle, block_rows=64, lanes=lanes
    )
    if kind == "packed":
        return [PackedLane(SourceDocuments(order, lane, lanes, how), 17) for lane in range(lanes)]
    return [
        BucketedLane(SourceDocuments(order, lane, lanes, how), rows_per_window=12, rows_per_batch=3, seed=1)
        for lane in range(lanes)
    ]


@pytest.mark.parametrize("kind", ["packed", "bucketed"])
@pytest.mark.parametrize("stream", [True, False])
def test_rows_and_states_are_those_of_reading_one_by_one(kind, stream, monkeypatch):
    def everything():
        made = make_lanes(kind, stream=stream)
        return [
            (row.ids, row.tokens.tolist(), lane.state()) for _ in range(40) for lane in made for row in [lane.next()]
        ]

    ahead = everything()
    monkeypatch.setattr(documents_module, "READ_AHEAD", 1)
    assert everything() == ahead


def test_short_documents_are_read_by_dozens_and_long_ones_are_not():
    def sizes(pairs):
        asked = []

        def watched(rows):
            asked.append(len(rows))
            return prepare(rows)

        (lane,) = make_lanes("packed", [pairs] * 2000, lanes=1, how=watched)
        for _ in range(3 * 64 * pairs // 17):
            lane.next()
        return asked

    assert max(sizes(5)) == documents_module.READ_AHEAD
    long = sizes(2000)
    assert long[0] == 1
    assert 1 < max(long) <= documents_module.READ_AHEAD_TOKENS // 2000


@pytest.mark.parametrize("stream", [True, False])
def test_one_good_document_is_enough_for_every_lane(stream):
    for lane in make_lanes("packed", [0] * 99 + [5], lanes=3, stream=stream):
        assert set((lane.next().tokens // APART).tolist()) == {99}


def test_a_lane_that_can_never_get_a_document_says_so():
    starving, fed = make_lanes("packed", ([0] * 8 + [5] * 8) * 4, shuffle=False)  # the blocks are of eight rows
    assert len(fed.next().ids) == 4
    with pytest.raises(
        DataError, match=r"lane 0 never gets a document of use from the train data: set fewer data\.lanes"
    ):
        starving.next()
