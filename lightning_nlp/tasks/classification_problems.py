"""What is asked of a text: one class, any number of labels, or a number. Each with its loss, metrics and answers."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from lightning_nlp.backbone.loss import cross_entropy
from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.classification import ClassificationMetrics
from lightning_nlp.metrics.multi_label import MultiLabelMetrics
from lightning_nlp.metrics.regression import RegressionMetrics

ProblemName = Literal["auto", "single", "multi_label", "regression"]


class SingleLabel:
    """One class: cross-entropy of ``labels [B]`` (int64, -100: padding row)."""

    metric_names: tuple[str, ...] = ("loss", "accuracy", "macro_f1", "mcc")
    loss_signature: str = "per:text|base:e"
    loss_name: str = "loss of the right class"
    """What the worst texts are the worst by."""

    def __init__(self, labels: list[str] | None) -> None:
        self.labels = labels or []
        self.check()

    def check(self) -> None:
        """Refuse labels that leave nothing to learn.

        Raises:
            ConfigError: fewer than two.
        """
        if len(self.labels) < 2:
            raise ConfigError(f"classification needs at least two labels, there are {len(self.labels)}")

    @property
    def outputs(self) -> int:
        """Scores a text gets."""
        return len(self.labels)

    def metrics(self) -> Metric:
        """Updated with scores, labels and example ids."""
        return ClassificationMetrics(len(self.labels))

    def loss(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(sum, count) over the batch, for ``scores [B, C]``."""
        return cross_entropy(scores, labels)

    def answers(self, scores: Tensor) -> list[dict[str, Any]]:
        """What is predicted for each row: the likeliest class, with the probabilities of all."""
        found = []
        for row in scores.float().softmax(-1).tolist():
            named = dict(zip(self.labels, row, strict=True))
            label = max(named, key=named.__getitem__)
            found.append({"prediction": label, "score": named[label], "scores": named})
        return found

    def named(self, label: Tensor) -> Any:
        """The label of one text as a person writes it."""
        return self.labels[int(label)]


class MultiLabel(SingleLabel):
    """Any number of labels: a binary cross-entropy each, of ``labels [B, C]`` (zeros and ones, NaN: padding row)."""

    metric_names = ("loss", "micro_f1", "macro_f1", "exact_match")
    loss_name = "loss a label"
    loss_signature = "per:label|base:e"

    def check(self) -> None:
        if not self.labels:
            raise ConfigError("multi_label needs at least one label, there is none")

    def metrics(self) -> Metric:
        return MultiLabelMetrics(len(self.labels))

    def loss(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(sum, count) over labels and rows."""
        wide = torch.promote_types(scores.dtype, torch.float32)
        real = ~labels.isnan()
        wanted = torch.where(real, labels, 0).to(wide)
        each = F.binary_cross_entropy_with_logits(scores.to(wide), wanted, reduction="none")
        return torch.where(real, each, 0).sum(), real.sum().to(wide)

    def answers(self, scores: Tensor) -> list[dict[str, Any]]:
        """All labels that are likelier than not, with the probabilities of all."""
        found = []
        for row in scores.float().sigmoid().tolist():
            named = dict(zip(self.labels, row, strict=True))
            found.append({"prediction": [label for label, score in named.items() if score > 0.5], "scores": named})
        return found

    def named(self, label: Tensor) -> Any:
        return [name for name, holds in zip(self.labels, label.tolist(), strict=True) if holds > 0.5]


class Regression(SingleLabel):
    """A number: squared error of ``labels [B]`` (float32, NaN: padding row)."""

    metric_names = ("loss", "pearson", "spearman")
    loss_name = "squared error"
    loss_signature = "per:text|squared error"

    def check(self) -> None:
        if self.labels:
            raise ConfigError("model.labels names classes, and model.problem regression has none")

    @property
    def outputs(self) -> int:
        return 1

    def metrics(self) -> Metric:
        return RegressionMetrics()

    def loss(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(sum, count) over rows, for ``scores [B, 1]``."""
        wide = torch.promote_types(scores.dtype, torch.float32)
        real = ~labels.isnan()
        distance = torch.where(real, scores[:, 0].to(wide) - labels.to(wide), 0)
        return distance.square().sum(), real.sum().to(wide)

    def answers(self, scores: Tensor) -> list[dict[str, Any]]:
        """The number."""
        return [{"prediction": value} for value in scores[:, 0].float().tolist()]

    def named(self, label: Tensor) -> Any:
        return float(label)


PROBLEMS: dict[str, type[SingleLabel]] = {"single": SingleLabel, "multi_label": MultiLabel, "regression": Regression}
