"""Rows to tensors: right padding that no task can mistake for data."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_nlp.data.collate import collate_packed, collate_single
from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.lanes import Row, pack, single

FIELDS = {
    "padding",
    "tokens",
    "labels",
    "positions",
    "segments",
    "row_ids",
    "bytes",
    "example_ids",
    "lanes",
    "continues",
}


def example(start, count, labels=None, name="doc"):
    tokens = np.arange(start, start + count, dtype=np.int32)
    return Example(tokens, tokens + 1 if labels is None else labels, name, bytes=3 * count, full_length=count)


def numbered(row, number):
    row.number = number
    return row


def integers(batch):
    kinds = {name: value.dtype for name, value in batch.items() if isinstance(value, torch.Tensor)}
    return kinds.pop("continues") == torch.bool and set(kinds.values()) == {torch.int64}


def test_packed_rows_are_taken_as_they_are():
    rows = [numbered(pack([(example(10, 3), 0, 3), (example(20, 9, name="b"), 4, 2)], 5), 7)]
    rows.append(numbered(pack([(example(30, 5, name="c"), 0, 5)], 5), 8))
    batch = collate_packed(rows, 99)
    assert set(batch) == FIELDS
    assert integers(batch)
    assert batch["tokens"].tolist() == [[10, 11, 12, 24, 25], [30, 31, 32, 33, 34]]
    assert batch["labels"].tolist() == [[11, 12, 13, 25, 26], [31, 32, 33, 34, 35]]
    assert batch["positions"].tolist() == [[0, 1, 2, 0, 1], [0, 1, 2, 3, 4]]
    assert batch["segments"].tolist() == [[1, 1, 1, 2, 2], [1, 1, 1, 1, 1]]
    assert batch["row_ids"].tolist() == [7, 8]
    assert batch["continues"].tolist() == [False, False] and batch["lanes"] == [-1, -1]
    assert collate_packed([pack([(example(20, 9), 4, 5)], 5)], 99)["continues"].tolist() == [True]
    assert batch["bytes"].tolist() == [9, 15]  # a continued document was counted where it began
    assert batch["example_ids"] == [["doc", "b@4"], ["c"]]
    padded, positions = batch["padding"]
    assert (padded, positions) == (int((batch["segments"] == 0).sum()), batch["tokens"].numel())


def test_the_last_packed_row_of_an_evaluation_is_padded():
    batch = collate_packed([pack([(example(10, 2), 0, 2)], 5)], 99)
    assert batch["labels"].tolist() == [[11, 12, -100, -100, -100]]
    assert batch["segments"].tolist() == [[1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("counts", "multiple", "length"), [((3, 5), 8, 8), ((8, 1), 8, 8), ((9, 2), 8, 16), ((3, 5), 1, 5)]
)
def test_single_rows_are_padded_to_a_multiple(counts, multiple, length):
    batch = collate_single([single(example(10, count, 4)) for count in counts], 99, multiple)
    assert set(batch) == FIELDS
    assert integers(batch)
    assert batch["tokens"].shape == batch["positions"].shape == batch["segments"].shape == (2, length)
    for row, count in enumerate(counts):
        assert batch["tokens"][row].tolist() == [*range(10, 10 + count), *[99] * (length - count)]
        assert batch["segments"][row].tolist() == [1] * count + [0] * (length - count)
        assert batch["positions"][row].tolist() == [*range(count), *[0] * (length - count)]
    assert batch["labels"].tolist() == [4, 4]


def test_a_label_at_every_position():
    batch = collate_single([single(example(10, 2)), single(example(20, 3))], 0, multiple=4)
    assert batch["labels"].tolist() == [[11, 12, -100, -100], [21, 22, 23, -100]]


@pytest.mark.parametrize("collate", [collate_packed, collate_single])
def test_no_rows_give_one_that_stands_for_nothing(collate):
    batch = collate([], 99)
    assert set(batch) == FIELDS
    assert integers(batch)
    assert len(batch["tokens"]) == 1
    assert set(batch["tokens"].flatten().tolist()) == {99}
    assert set(batch["labels"].flatten().tolist()) == {-100}
    assert not batch["segments"].any()
    assert (batch["row_ids"].tolist(), batch["bytes"].tolist(), batch["example_ids"]) == ([-1], [0], [[]])


def test_rows_are_not_written_to():
    row: Row = single(example(10, 3, 1))
    collate_single([row], 99)["tokens"].zero_()
    assert row.tokens.tolist() == [10, 11, 12]
