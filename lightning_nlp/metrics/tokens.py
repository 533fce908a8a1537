"""Scores of tokens that were predicted one by one, and of whole answers, from sums that ranks can add."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

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


class ExactMatch(Metric):
    """Share of answers that are, character by character, the reference."""

    full_state_update = False
    signature = "whole answers|characters"
    matches: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("matches", "count"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: list[str], references: list[str]) -> None:
        """Add answers and what they should have been."""
        self.matches += sum(one == other for one, other in zip(predictions, references, strict=True))
        self.count += len(references)

    def compute(self) -> dict[str, float]:
        """``exact_match``; nothing where nothing was decoded."""
        count = float(self.count)
        return {"exact_match": float(self.matches) / count} if count else {}
