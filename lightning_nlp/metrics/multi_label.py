"""F1 of any number of labels a text, from counts that ranks can add."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_nlp.metrics.classification import shares
from lightning_nlp.metrics.unseen import Unseen


class MultiLabelMetrics(Metric):
    """Micro-F1 over all labels, macro-F1 over labels that occur, and the share of texts whose labels are all right.

    Args:
        labels: how many there are.
    """

    full_state_update = False
    signatures: ClassVar[dict[str, str]] = {
        "micro_f1": "threshold:0.5|average:micro|all labels",
        "macro_f1": "threshold:0.5|average:macro|classes:present",
        "exact_match": "threshold:0.5|share of texts with all labels right",
    }
    both: Tensor
    wanted: Tensor
    found: Tensor
    exact: Tensor
    rows: Tensor
    computed: tuple[Tensor, Tensor, Tensor] | None = None
    """``[C]`` each, right and predicted, right, predicted: what the last :meth:`compute` saw, over all ranks."""

    def __init__(self, labels: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("both", "wanted", "found"):
            self.add_state(name, default=torch.zeros(labels, dtype=torch.float64), dist_reduce_fx="sum")
        for name in ("exact", "rows"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self._unseen = Unseen()

    def update(self, scores: Tensor, labels: Tensor, ids: list[str]) -> None:
        """Add a batch.

        Args:
            scores: logits ``[B, C]``; above 0 a label is predicted.
            labels: ``[B, C]`` of zeros and ones; NaN is padding.
            ids: example ids; one that was seen before is ignored.
        """
        rows = self._unseen((~labels.isnan()).all(-1).tolist(), ids)
        found, wanted = scores[rows] > 0, labels[rows] > 0.5
        self.both += (found & wanted).sum(0)
        self.wanted += wanted.sum(0)
        self.found += found.sum(0)
        self.exact += (found == wanted).all(-1).sum()
        self.rows += len(rows)

    def compute(self) -> dict[str, float]:
        """``micro_f1``, ``macro_f1`` and ``exact_match``, as scikit-learn's; 0 where there is nothing to find."""
        self.computed = self.both.clone(), self.wanted.clone(), self.found.clone()
        total = self.wanted + self.found
        present = total > 0
        f1 = 2 * self.both[present] / total[present]
        return {
            "micro_f1": float(2 * self.both.sum() / total.sum().clamp(min=1)),
            "macro_f1": float(f1.mean()) if bool(present.any()) else 0.0,
            "exact_match": float(self.exact / self.rows.clamp(min=1)),
        }

    def each(self) -> list[dict[str, float]]:
        """``precision``, ``recall``, ``f1`` and ``support`` of every label at the last :meth:`compute`."""
        return [] if self.computed is None else shares(*self.computed)

    def reset(self) -> None:
        super().reset()
        self._unseen.forget()
