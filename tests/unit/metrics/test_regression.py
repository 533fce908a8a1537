"""Correlations agree with SciPy, also over shards, with ties, and where nothing varies."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from lightning_nlp.metrics.regression import RegressionMetrics


def data(rows, seed, ties):
    draw = np.random.default_rng(seed)
    wanted = draw.normal(size=rows)
    found = wanted + draw.normal(size=rows)
    if ties:
        wanted, found = wanted.round(), found.round()
    return torch.from_numpy(found)[:, None], torch.from_numpy(wanted), [str(row) for row in range(rows)]


def filled(scores, labels, ids, batch=7):
    metric = RegressionMetrics()
    for start in range(0, len(ids), batch):
        metric.update(scores[start : start + batch], labels[start : start + batch], ids[start : start + batch])
    return metric


@pytest.mark.parametrize("rows", [5, 100, 500])
@pytest.mark.parametrize("ties", [False, True])
def test_agrees_with_scipy(rows, ties):
    scores, labels, ids = data(rows, rows, ties)
    found, wanted = scores[:, 0].numpy(), labels.numpy()
    expected = {"pearson": pearsonr(found, wanted).statistic, "spearman": spearmanr(found, wanted).statistic}
    assert filled(scores, labels, ids).compute() == pytest.approx(expected, abs=1e-6)


def test_padding_and_repeated_ids_do_not_count():
    scores, labels, ids = data(30, 1, False)
    metric, once = (
        filled(torch.cat((scores, -scores)), torch.cat((labels, labels)), ids + ids),
        filled(scores, labels, ids),
    )
    metric.update(torch.ones(1, 1), torch.tensor([torch.nan]), [""])
    assert metric.compute() == once.compute()
    metric.reset()
    assert metric.compute() == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("rows", [[(1, 2)], [(1, 2), (1, 3), (1, 4)], [(1, 2), (5, 2)]])
def test_nothing_that_varies(rows):
    metric = RegressionMetrics()
    metric.update(
        torch.tensor([[float(row[0])] for row in rows]),
        torch.tensor([float(row[1]) for row in rows]),
        [str(n) for n in range(len(rows))],
    )
    assert metric.compute() == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("cut", [7, 14])
def test_shards_add_up_in_any_order(cut):
    scores, labels, ids = data(21, 2, True)
    left, right = filled(scores[:cut], labels[:cut], ids[:cut]), filled(scores[cut:], labels[cut:], ids[cut:])
    right.merge_state(left)
    assert right.compute() == pytest.approx(filled(scores, labels, ids).compute(), abs=1e-6)
