"""What a task adds to the shared backbone: a loss, metrics and a way to answer.

A head is a plain ``nn.Module``. It never holds the backbone, never logs, never touches a Trainer: the shell
(:mod:`lightning_nlp.tasks.base`) hands it the backbone at every call, so one backbone can serve many heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from lightning_nlp.errors import ConfigError

if TYPE_CHECKING:
    from lightning_nlp.backbone.config import TransformerConfig
    from lightning_nlp.backbone.transformer import Transformer
    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

Losses = dict[str, tuple[Tensor, Tensor]]
"""``{name: (sum, count)}``: the shell divides by counts over the whole optimizer step; "loss" is the one trained on."""


class Head(nn.Module):
    """Base of every task head. Subclasses give ``arrangements``, ``metric_names`` and the methods below."""

    arrangements: ClassVar[tuple[str, ...]] = ("decoder",)
    metric_names: ClassVar[tuple[str, ...]] = ("loss",)
    tokenizer: Tokenizer | None = None
    thorough: bool = False
    """Evaluate with what takes time, because no training waits for it."""

    def resolve(self, facts: dict[str, Any]) -> None:
        """Take what the data decides (labels ...) before parameters exist. ``facts`` is empty without data."""

    def build(self, config: TransformerConfig) -> None:
        """Create parameters and metrics for a complete ``config``; called once, possibly on the meta device.

        Raises:
            ConfigError: the backbone's arrangement does not fit this head.
        """
        if config.arrangement not in self.arrangements:
            fits = " or ".join(self.arrangements)
            raise ConfigError(f"backbone.arrangement is {config.arrangement}, this task needs {fits}")

    def forward(self, backbone: Transformer, batch: dict[str, Any]) -> Losses:
        """Training losses of one micro-batch."""
        raise TypeError(f"{type(self).__name__} does not define a training loss")

    def update(self, backbone: Transformer, batch: dict[str, Any]) -> None:
        """Add one evaluation batch to the metrics."""
        raise TypeError(f"{type(self).__name__} does not define evaluation")

    def compute(self) -> dict[str, float]:
        """Metrics since the last :meth:`reset`, over all ranks; names without a prefix."""
        raise TypeError(f"{type(self).__name__} does not define metrics")

    def signatures(self) -> dict[str, str]:
        """How each metric was computed, for reports."""
        return {}

    def reset(self) -> None:
        """Forget all evaluation batches."""

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One record for each example of a prediction batch."""
        raise TypeError(f"{type(self).__name__} does not define predictions")

    def samples(self, backbone: Transformer) -> dict[str, str]:
        """Texts worth looking at during training, ``{title: Markdown}``; none by default."""
        return {}
