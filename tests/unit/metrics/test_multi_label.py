"""F1 of several labels agrees with scikit-learn; each id counts once, and sums of shards are the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from lightning_nlp.metrics.multi_label import MultiLabelMetrics


def data(rows, labels, seed, rare=0.3):
    draw = np.random.default_rng(seed)
    wanted = draw.random((rows, labels)) < rare
    found = np.where(draw.random((rows, labels)) < 0.7, wanted, ~wanted)
    scores = np.where(found, 1.0, -1.0) * draw.uniform(0.01, 3, (rows, labels))
    return torch.from_numpy(scores), torch.from_numpy(wanted.astype(np.float32)), [str(row) for row in range(rows)]


def filled(scores, labels, ids, batch=7):
    metric = MultiLabelMetrics(scores.shape[1])
    for start in range(0, len(ids), batch):
        metric.update(scores[start : start + batch], labels[start : start + batch], ids[start : start + batch])
    return metric


@pytest.mark.parametrize(("rows", "labels", "rare"), [(50, 4, 0.3), (200, 9, 0.05), (30, 1, 0.5), (1, 3, 0.5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_scikit_learn(rows, labels, rare, seed):
    scores, wanted, ids = data(rows, labels, seed, rare)
    found, right = (scores > 0).numpy(), wanted.numpy() > 0.5
    present = (found | right).any(0)
    expected = {
        "micro_f1": f1_score(right.ravel(), found.ravel(), zero_division=0.0),
        "macro_f1": np.mean([f1_score(right[:, c], found[:, c]) for c in np.flatnonzero(present)]),
        "exact_match": accuracy_score(right, found),
    }
    assert filled(scores, wanted, ids).compute() == pytest.approx(expected, abs=1e-12)


def test_padding_and_repeated_ids_do_not_count():
    scores, wanted, ids = data(20, 3, 5)
    once = filled(scores, wanted, ids).compute()
    twice = filled(torch.cat((scores, -scores)), torch.cat((wanted, wanted)), ids + ids)
    assert twice.compute() == once
    twice.update(torch.ones(2, 3), torch.full((2, 3), torch.nan), ["", ""])
    assert twice.compute() == once
    twice.reset()
    assert twice.compute() == {"micro_f1": 0.0, "macro_f1": 0.0, "exact_match": 0.0}
    twice.update(scores, wanted, ids)
    assert twice.compute() == once


@pytest.mark.parametrize("cut", [0, 7, 20])
def test_shards_add_up(cut):
    scores, wanted, ids = data(20, 3, 6)
    left, right = filled(scores[:cut], wanted[:cut], ids[:cut]), filled(scores[cut:], wanted[cut:], ids[cut:])
    left.merge_state(right)
    assert left.compute() == filled(scores, wanted, ids).compute()
    assert {reduce.__name__ for reduce in left._reductions.values()} == {"dim_zero_sum"}
