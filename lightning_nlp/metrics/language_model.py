"""Loss, perplexity and bits per byte of language models, from sums that ranks can add."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from lightning_nlp.metrics.by_source import SumsBySource


class LanguageModelMetrics(SumsBySource):
    """Mean loss a token, its exponential, and the tokenizer-independent bits per byte of text."""

    signature = "per:label|base:e|bits_per_byte:utf-8"
    names: ClassVar[tuple[str, ...]] = ("loss_sum", "count", "bytes")

    def update(self, loss_sum: Tensor, count: Tensor, bytes: Tensor, source: str | None = None) -> None:
        """Add a batch: summed loss in nats, labels counted, utf-8 bytes those labels spell (0 = unknown)."""
        self.add(source, loss_sum=loss_sum, count=count, bytes=bytes)

    def measured(self, sums: dict[str, float]) -> dict[str, float]:
        """``loss``, ``perplexity`` and, where bytes are known, ``bits_per_byte``."""
        loss = sums["loss_sum"] / max(sums["count"], 1.0)
        values = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if sums["bytes"] > 0:
            values["bits_per_byte"] = sums["loss_sum"] / math.log(2) / sums["bytes"]
        return values
