"""Several scores of decoded texts together; each example counts once."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_nlp import registry
from lightning_nlp.metrics.classification import Unseen


def metric_names(metrics: Sequence[str]) -> tuple[str, ...]:
    """Names under which text metrics are logged, in order.

    Raises:
        ConfigError: no such metric.
    """
    return tuple(name for metric in metrics for name in registry.load(registry.METRICS, metric, "metric").names)


class TextMetrics(nn.Module):
    """Text metrics by name.

    Args:
        metrics: names of the registry.
        language: of the texts.
    """

    def __init__(self, metrics: Sequence[str], language: str = "") -> None:
        super().__init__()
        self.metrics = nn.ModuleList(registry.load(registry.METRICS, name, "metric")(language) for name in metrics)
        self._unseen = Unseen()

    def update(self, predictions: list[str], references: list[str], ids: list[str]) -> None:
        keep = self._unseen([True] * len(ids), ids)
        for metric in self.metrics:
            metric.update([predictions[row] for row in keep], [references[row] for row in keep])

    def compute(self) -> dict[str, float]:
        return {name: value for metric in self.metrics for name, value in metric.compute().items()}

    def signatures(self) -> dict[str, str]:
        return {name: metric.signature for metric in self.metrics for name in metric.names}

    def reset(self) -> None:
        self._unseen.forget()
        for metric in self.metrics:
            metric.reset()
