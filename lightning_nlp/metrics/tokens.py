"""Scores of tokens that were predicted one by one, from sums that ranks can add."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from lightning_nlp.metrics.by_source import SumsBySource


class TokenMetrics(SumsBySource):
    """Mean loss a label, its exponential, and the share of labels that were the likeliest token."""

    signature = "per:label|base:e"
    names: ClassVar[tuple[str, ...]] = ("loss_sum", "count", "correct")

    def update(self, loss_sum: Tensor, count: Tensor, correct: Tensor, source: str | None = None) -> None:
        """Add a batch: summed loss in nats, labels counted, labels predicted right."""
        self.add(source, loss_sum=loss_sum, count=count, correct=correct)

    def measured(self, sums: dict[str, float]) -> dict[str, float]:
        """``loss``, ``perplexity`` and ``accuracy``."""
        count = max(sums["count"], 1.0)
        loss = sums["loss_sum"] / count
        return {"loss": loss, "perplexity": math.exp(min(loss, 700.0)), "accuracy": sums["correct"] / count}
