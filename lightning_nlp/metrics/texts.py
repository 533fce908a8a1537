"""Several metrics of the same written texts."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.metrics.text_metric import TextMetric


class TextMetrics(nn.Module):
    """The metrics asked for, under the names they are logged by. Each example id counts once.

    Args:
        names: of the registry: ``bleu``, ``chrf``, ``ter``, ``rouge``, ``exact_match``, ``token_f1``, ``distinct``.
        language: ISO code of the references, which decides how they are split into words; empty: not known.
        options: of single metrics, such as ``{"bleu": {"tokenize": "intl"}, "chrf": {"word_order": 2}}``.

    Raises:
        ConfigError: an unknown name or option, one named twice, or options of a metric that is not asked for.
    """

    def __init__(
        self, names: Sequence[str], language: str = "", options: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__()
        options = options or {}
        for name in names:
            if list(names).count(name) > 1:
                raise ConfigError(f"metric '{name}' is asked for twice")
        for name in options:
            if name not in names:
                raise ConfigError(f"options of metric '{name}', which is not asked for{nearest(name, names)}")
        made = {name: build(name, language, options.get(name, {})) for name in names}
        self.metrics = nn.ModuleDict(made)

    def _each(self) -> list[TextMetric]:
        return list(self.metrics.values())  # type: ignore[arg-type]

    @property
    def names(self) -> tuple[str, ...]:
        """What :meth:`compute` gives, as logged."""
        return tuple(name for metric in self._each() for name in metric.names)

    @property
    def higher_is_better(self) -> dict[str, bool]:
        """Of each of ``names``."""
        return {name: bool(metric.higher_is_better) for metric in self._each() for name in metric.names}

    def update(self, predictions: list[str], references: list[str], ids: list[str]) -> None:
        """Add texts, the references they are compared with, and their example ids; empty lists are welcome."""
        for metric in self._each():
            metric.update(predictions, references, ids)

    def compute(self) -> dict[str, float]:
        """Values over all ranks, which must all call this; nothing where there were no texts."""
        self.update([], [], [])  # a rank without texts takes part, and torchmetrics does not warn of it
        return {name: value for metric in self._each() for name, value in metric.compute().items()}

    def reset(self) -> None:
        """Begin anew."""
        for metric in self._each():
            metric.reset()

    def signatures(self) -> dict[str, str]:
        """How each of ``names`` was computed."""
        return {name: metric.signature for metric in self._each() for name in metric.names}


def build(name: str, language: str, options: Mapping[str, Any]) -> TextMetric:
    """One metric of the registry.

    Raises:
        ConfigError: there is no such metric, or it has no such option.
    """
    kind = registry.load(registry.METRICS, name, "metric")
    known = [key for key in inspect.signature(kind.__init__).parameters if key not in ("self", "language", "kwargs")]
    for key in options:
        if key not in known:
            has = f"(known: {', '.join(known)})" if known else "(it has none)"
            raise ConfigError(f"metric {name} has no option '{key}'{nearest(key, known)} {has}")
    return kind(language, **options)
