"""Accuracy, macro-F1, Matthews correlation and the scores of each class from one confusion matrix."""

from __future__ import annotations

from typing import Any, ClassVar

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
    signatures: ClassVar[dict[str, str]] = {
        "accuracy": "share of texts|equals micro_f1",
        "macro_f1": "average:macro|classes:present",
        "mcc": "of all classes",
    }
    confusion: Tensor
    computed: Tensor | None = None
    """``[C, C]``, of right classes (rows) and predicted ones: what the last :meth:`compute` saw, over all ranks."""

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
        matrix = self.computed = self.confusion.clone()
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

    def each(self) -> list[dict[str, float]]:
        """``precision``, ``recall``, ``f1`` and ``support`` of every class at the last :meth:`compute`."""
        if self.computed is None:
            return []
        return shares(self.computed.diagonal(), self.computed.sum(1), self.computed.sum(0))

    def reset(self) -> None:
        super().reset()
        self._unseen.forget()


def shares(both: Tensor, wanted: Tensor, found: Tensor) -> list[dict[str, float]]:
    """Precision, recall, F1 (0 where there is nothing to divide by) and support of each class, of counts ``[C]``."""
    rows = zip(both.tolist(), wanted.tolist(), found.tolist(), strict=True)
    return [
        {
            "precision": hits / max(predicted, 1),
            "recall": hits / max(support, 1),
            "f1": 2 * hits / max(predicted + support, 1),
            "support": int(support),
        }
        for hits, support, predicted in rows
    ]
