"""Several examples of one document, and fields beside tokens and labels: packed, bucketed, evaluated, resumed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from corpora import ListSource, make_order

from lightning_nlp.data.collate import collate_packed, collate_single
from lightning_nlp.data.evaluation import EvalRows
from lightning_nlp.data.objectives import Example, in_turn
from lightning_nlp.data.order.budget import BudgetLane
from lightning_nlp.data.order.documents import SourceDocuments
from lightning_nlp.data.order.lanes import BucketedLane, FittedLane, PackedLane, pack, single


def example(tokens, *, flags=None, name="doc"):
    tokens = np.asarray(tokens, dtype=np.int32)
    extras = {} if flags is None else {"flag": np.asarray(flags, dtype=bool), "kind": np.asarray(flags, dtype=np.int32)}
    return Example(tokens, tokens + 1, name, full_length=len(tokens), extras=extras)


def test_extra_fields_are_cut_and_joined_as_tokens_are():
    a, b, plain = example([1, 2, 3], flags=[1, 1, 0]), example([5, 6, 7], flags=[1, 0, 1]), example([8, 9])
    row = pack([(a, 1, 2), (plain, 0, 2), (b, 2, 1)], 7)
    assert row.extras["flag"].tolist() == [True, False, False, False, True, False, False]
    batch = collate_packed([row, pack([(plain, 0, 2)], 7)], 0)
    assert (batch["flag"].dtype, batch["kind"].dtype) == (torch.bool, torch.int64)
    assert batch["kind"].tolist() == [[1, 0, 0, 0, 1, 0, 0], [0] * 7]
    batch = collate_single([single(b), single(plain), single(a)], 0, 4)
    assert batch["flag"].tolist() == [[True, False, True, False], [False] * 4, [True, True, False, False]]
    assert "flag" not in collate_single([single(plain)], 0)


def parts_of(rows):
    """Row n gives n % 4 examples (none: nothing), each of up to five tokens and all of them different."""
    found = []
    for row in rows:
        number = row["number"]
        parts = [
            example(np.arange(1 + (number + part) % 5) + 100 * number + 10 * part, name=f"d{number}.{part}")
            for part in range(number % 4)
        ]
        found.append(in_turn(parts))
    return found


LANES = {
    "packed": lambda documents: PackedLane(documents, 7),
    "fitted": lambda documents: FittedLane(documents, rows_per_window=6, length=7, seed=3),
    "bucketed": lambda documents: BucketedLane(documents, rows_per_window=6, rows_per_batch=2, seed=3),
    "budget": lambda documents: BudgetLane(documents, budget=32, groups=2, seed=3),
}


def lane_of(kind, rows=29):
    return LANES[kind](SourceDocuments(make_order([1] * rows, lanes=1), 0, 1, parts_of))


def tokens_of(lane, count):
    rows = []
    for _ in range(count):
        item = lane.next()
        rows += [
            (row.tokens[row.segments > 0].tolist(), row.ids) for row in (item if isinstance(item, list) else [item])
        ]
    return rows


@pytest.mark.parametrize("kind", LANES)
def test_every_example_of_a_document_is_used_once_an_epoch(kind):
    lane = lane_of(kind)
    expected = {
        token
        for row in [{"number": number} for number in range(29)]
        for first in parts_of([row])
        if first is not None
        for part in first.parts
        for token in part.tokens.tolist()
    }
    seen, rows = [], []
    while len(seen) < len(expected):
        rows += tokens_of(lane, 1)
        seen = [token for tokens, _ in rows for token in tokens]
    assert set(seen) <= expected
    if kind == "packed":  # the order is that of the documents, and so is what a row holds
        assert sorted(seen[: len(expected)]) == sorted(expected)
    counts = lane.documents.counts
    assert counts.documents >= 21 and counts.split >= 14 and counts.dropped >= 7


@pytest.mark.parametrize("kind", LANES)
@pytest.mark.parametrize("stop", [1, 2, 3, 7, 12])
def test_a_lane_goes_on_between_two_examples_of_a_document(kind, stop):
    whole = tokens_of(lane_of(kind), 20)
    first = lane_of(kind)
    before = tokens_of(first, stop)
    again = lane_of(kind)
    again.restore(json.loads(json.dumps(first.state())))
    assert before + tokens_of(again, 20 - stop) == whole
    assert again.documents.counts == lane_counts(kind)


def lane_counts(kind):
    lane = lane_of(kind)
    tokens_of(lane, 20)
    return lane.documents.counts


def test_a_state_saved_before_documents_had_parts_is_read():
    lane = lane_of("packed")
    tokens_of(lane, 4)
    state = lane.state()
    whole = tokens_of(lane, 5)
    if state["part"] == 0:
        del state["part"]
    del state["split"]
    again = lane_of("packed")
    again.restore(state)
    assert tokens_of(again, 5) == whole


@pytest.mark.parametrize("mode", ["packed", "single"])
def test_evaluation_sees_every_example_of_every_document(mode):
    source = ListSource([{"id": f"d{n}", "number": n} for n in range(11)])
    rows = EvalRows(source, parts_of, mode=mode, max_length=7, micro_batch=2, data_ranks=1, rank=0)
    seen = sorted(token for group in rows for row in group for token in row.tokens[row.segments > 0].tolist())
    parts = [part for first in parts_of([{"number": n} for n in range(11)]) if first for part in first.parts]
    assert seen == sorted(token for part in parts for token in part.tokens.tolist())
    if mode == "single":  # the first example of a document stands for its row
        places = {name: row.place for group in rows for row in group for name in row.ids}
        assert all(place == (int(name[1:-2]) if name.endswith(".0") else -1) for name, place in places.items())
