"""Loss, perplexity and bits per byte of language models, from sums that ranks can add."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class LanguageModelMetrics(Metric):
    """Mean loss a token, its exponential, and the tokenizer-independent bits per byte of text."""

    full_state_update = False
    signature = "per:label|base:e|bits_per_byte:utf-8"
    loss_sum: Tensor
    count: Tensor
    bytes: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("loss_sum", "count", "bytes"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss_sum: Tensor, count: Tensor, bytes: Tensor) -> None:
        """Add a batch: summed loss in nats, labels counted, utf-8 bytes those labels spell (0 = unknown)."""
        self.loss_sum += loss_sum.double()
        self.count += count.double()
        self.bytes += bytes.double()

    def compute(self) -> dict[str, float]:
        """``loss``, ``perplexity`` and, where bytes are known, ``bits_per_byte``."""
        loss = float(self.loss_sum) / max(float(self.count), 1.0)
        values = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        if float(self.bytes) > 0:
            values["bits_per_byte"] = float(self.loss_sum) / math.log(2) / float(self.bytes)
        return values
