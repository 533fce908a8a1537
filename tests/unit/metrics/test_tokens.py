"""Token scores: sums that batches, and ranks, can add."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_nlp.metrics.tokens import TokenMetrics


def test_tokens_are_weighed_by_count_not_by_batch():
    metric = TokenMetrics()
    for loss_sum, count, correct in ((6.0, 2, 1), (2.0, 6, 5), (0.0, 0, 0)):
        metric.update(*map(torch.tensor, (loss_sum, count, correct)))
    assert metric.compute() == pytest.approx({"loss": 1.0, "perplexity": math.e, "accuracy": 0.75})
    metric.reset()
    assert metric.compute() == {"loss": 0.0, "perplexity": 1.0, "accuracy": 0.0}
    metric.update(torch.tensor(1e6), torch.tensor(1), torch.tensor(0))
    assert math.isfinite(metric.compute()["perplexity"])


def test_sums_stay_exact_over_many_batches():
    """In float32, a sum of 2^24 would no longer grow by one."""
    metric = TokenMetrics()
    metric.update(torch.tensor(0.0), torch.tensor(2**24), torch.tensor(2**24))
    metric.update(torch.tensor(0.0), torch.tensor(1), torch.tensor(0))
    assert metric.count == 2**24 + 1 and metric.compute()["accuracy"] < 1
