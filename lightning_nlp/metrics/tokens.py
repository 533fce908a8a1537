"""Scores of tokens that were predicted one by one, from sums that ranks can add."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class TokenMetrics(Metric):
    """Mean loss a label, its exponential, and the share of labels that were the likeliest token."""

    full_state_update = False
    signature = "per:label|base:e"
    loss_sum: Tensor
    count: Tensor
    correct: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("loss_sum", "count", "correct"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss_sum: Tensor, count: Tensor, correct: Tensor) -> None:
        """Add a batch: summed loss in nats, labels counted, labels predicted right."""
        self.loss_sum += loss_sum.double()
        self.count += count.double()
        self.correct += correct.double()

    def compute(self) -> dict[str, float]:
        """``loss``, ``perplexity`` and ``accuracy``."""
        count = max(float(self.count), 1.0)
        loss = float(self.loss_sum) / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": float(self.correct) / count}
