"""Correlation of predicted numbers with the right ones, over all ranks."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional import pearson_corrcoef, spearman_corrcoef
from torchmetrics.utilities import dim_zero_cat

from lightning_nlp.metrics.unseen import Unseen


class RegressionMetrics(Metric):
    """Pearson's and Spearman's correlation. Ranks among all need all values, so these are kept, and gathered."""

    full_state_update = False
    signatures: ClassVar[dict[str, str]] = {
        "pearson": "over all examples",
        "spearman": "over all examples|ties:average rank",
    }
    values: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self._unseen = Unseen()

    def update(self, scores: Tensor, labels: Tensor, ids: list[str]) -> None:
        """Add a batch; a rank without rows adds none, but takes part.

        Args:
            scores: predicted numbers ``[B, 1]``.
            labels: right ones ``[B]``; NaN is padding.
            ids: example ids; one that was seen before is ignored.
        """
        rows = self._unseen((~labels.isnan()).tolist(), ids)
        self.values.append(torch.stack((scores[rows, 0].double(), labels[rows].double()), dim=1))

    def compute(self) -> dict[str, float]:
        """``pearson`` and ``spearman``; 0 where one side does not vary."""
        values = dim_zero_cat(self.values) if len(self.values) else torch.zeros(0, 2)
        if len(values) < 2 or bool((values == values[0]).all(0).any()):
            return {"pearson": 0.0, "spearman": 0.0}
        found, wanted = values.unbind(1)
        return {
            "pearson": float(pearson_corrcoef(found, wanted)),
            "spearman": float(spearman_corrcoef(found, wanted)),
        }

    def reset(self) -> None:
        super().reset()
        self._unseen.forget()
