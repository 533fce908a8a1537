"""Accuracy, macro-F1 and Matthews correlation from one confusion matrix."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_nlp.metrics.unseen import Unseen


class ClassificationMetrics(Metric):
    """Scores of single-label classification; each example id counts once, and confusion matrices are added.

    Args:
        num_classes: number of labels.
    """

    full_state_update = False
    signature = "macro_f1|average:macro|classes:present"
    confusion: Tensor

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.float64)
        self.add_state("confusion", default=zeros, dist_reduce_fx="sum")
        self._unseen = Unseen()

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Only :meth:`update`: torchmetrics' own would reset in between and forget which ids were seen."""
        self.update(*args, **kwargs)

    def update(self, predictions: Tensor, labels: Tensor, ids: list[str]) -> None:
        """Add a batch.

        Args:
            predictions: scores ``[B, C]`` or class numbers ``[B]``.
            labels: class numbers ``[B]``; -100 is padding.
            ids: example ids; one that was seen before is ignored.
        """
        if predictions.ndim == 2:
            predictions = predictions.argmax(-1)
        if keep := self._unseen((labels != -100).tolist(), ids):
            rows = torch.tensor(keep, device=labels.device)
            flat = labels[rows] * self.num_classes + predictions[rows]
            counts = torch.bincount(flat, minlength=self.num_classes**2).double()
            self.confusion += counts.view(self.num_classes, self.num_classes)

    def compute(self) -> dict[str, float]:
        """``accuracy``, ``macro_f1`` over classes present in labels or predictions, ``mcc``; as scikit-learn's."""
        matrix = self.confusion
        total = matrix.sum()
        hits, labels, predictions = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        present = (labels + predictions) > 0
        f1 = 2 * hits[present] / (labels + predictions)[present]
        covariance = hits.sum() * total - (labels * predictions).sum()
        spread = (total**2 - (predictions**2).sum()) * (total**2 - (labels**2).sum())
        return {
            "accuracy": float(hits.sum() / total.clamp(min=1)),
            "macro_f1": float(f1.mean()) if bool(present.any()) else 0.0,
            "mcc": float(covariance / spread.sqrt()) if float(spread) > 0 else 0.0,
        }

    def reset(self) -> None:
        super().reset()
        self._unseen.forget()
