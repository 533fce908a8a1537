"""Evaluation sees every example exactly once, on any number of ranks."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from corpora import APART, ListSource, documents, prepare

from lightning_nlp.data.evaluation import EvalRows
from lightning_nlp.errors import DataError

LENGTHS = [int(size) for size in np.random.default_rng(3).integers(0, 25, 70)]


def evaluate(ranks, mode, *, lengths=LENGTHS, micro_batch=3, max_length=20, by_length=True, stream=False):
    more = {"mode": mode, "max_length": max_length, "micro_batch": micro_batch, "by_length": by_length}
    source = ListSource(documents(lengths), stream=stream, name="validation")
    return [list(EvalRows(source, prepare, data_ranks=ranks, rank=rank, **more)) for rank in range(ranks)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("mode", ["packed", "single"])
@pytest.mark.parametrize("lengths", [LENGTHS, [5], [0, 1, 0], [20] * 18, [20] * 19, [100, 3]], ids=len)
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_example_is_evaluated_once(ranks, lengths, mode, stream):
    shares = evaluate(ranks, mode, lengths=lengths, stream=stream)
    assert len({len(share) for share in shares}) == 1  # micro-batches: nobody waits for anybody
    assert all(len(rows) <= 3 for share in shares for rows in share)
    rows = [row for share in shares for rows in share for row in rows]
    pairs = Counter()
    for row in rows:
        real = row.labels != -100
        assert np.array_equal(row.labels[real], row.tokens[real] + 1)
        assert np.array_equal(real, row.segments > 0)
        pairs.update(row.tokens[real].tolist())
    assert pairs == Counter(doc * APART + n for doc, size in enumerate(lengths) for n in range(size))
    assert sum(row.bytes for row in rows) == sum(lengths)
    assert sorted(row.number for row in rows) == list(range(len(rows)))
    if mode == "single":
        assert sorted(row.ids for row in rows) == sorted([f"d{n}"] for n, size in enumerate(lengths) if size)


def test_rows_do_not_depend_on_ranks():
    for mode in ("packed", "single"):
        whole = {row.number: row.tokens.tolist() for rows in evaluate(1, mode, micro_batch=6)[0] for row in rows}
        parts = [row for share in evaluate(2, mode) for rows in share for row in rows]
        assert {row.number: row.tokens.tolist() for row in parts} == whole


def test_the_last_packed_row_is_padded():
    (last,) = evaluate(1, "packed", lengths=[20, 7])[0][0][1:]
    assert last.tokens.tolist() == [*range(APART, APART + 7), *[0] * 13]
    assert last.labels.tolist() == [*range(APART + 1, APART + 8), *[-100] * 13]
    assert last.segments.tolist() == [1] * 7 + [0] * 13
    assert last.positions.tolist() == [*range(7), *[0] * 13]


def test_single_rows_by_length_or_in_order():
    sizes = {
        by_length: [len(row.tokens) for rows in evaluate(1, "single", by_length=by_length)[0] for row in rows]
        for by_length in (False, True)
    }
    assert sizes[False] == [size for size in LENGTHS if size]
    assert sizes[True] == sorted(sizes[False])


@pytest.mark.parametrize("mode", ["packed", "single"])
def test_nothing_to_evaluate_is_an_error(mode):
    with pytest.raises(DataError, match="no document of the validation data gives anything to evaluate"):
        evaluate(1, mode, lengths=[0, 0])
