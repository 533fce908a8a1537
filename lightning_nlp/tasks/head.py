"""What a task adds to the shared backbone: a loss, metrics and a way to answer.

A head is a plain ``nn.Module``. It never holds the backbone, never logs, never touches a Trainer: the shell
(:mod:`lightning_nlp.tasks.base`) hands it the backbone at every call, so one backbone can serve many heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.examples import Examples, Record

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
    examples: Examples | None = None
    """Where evaluation offers its examples, while somebody wants to read some."""
    example_score: ClassVar[str] = "loss a label"
    """What the worst examples are the worst by."""

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

    def details(self) -> dict[str, dict[str, float]]:
        """A table for reports of the last :meth:`compute`: numbers of each class, where there are classes."""
        return {}

    def confusion(self) -> tuple[Tensor, list[str]] | None:
        """Counts ``[C, C]`` of right classes (rows) and predicted ones at the last :meth:`compute`, and their names."""
        return None

    def reset(self) -> None:
        """Forget all evaluation batches."""

    def watch(self, number: int) -> None:
        """Choose ``number`` of the worst examples, and as many by chance, from the evaluation that begins."""
        self.examples = Examples(number)

    def chosen(self, backbone: Transformer, device: Any) -> dict[str, list[Record]]:
        """The examples :meth:`watch` asked for, ``worst`` and ``random``, over all ranks, which must all call this."""
        assert self.examples is not None
        examples, self.examples = self.examples, None
        examples.gather(device)
        found = examples.chosen
        self.complete(backbone, list({record["id"]: record for side in found.values() for record in side}.values()))
        return found

    def complete(self, backbone: Transformer, records: list[Record]) -> None:
        """Fill in what takes too long for examples that are not chosen; the same records on all ranks."""

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One record for each example of a prediction batch."""
        raise TypeError(f"{type(self).__name__} does not define predictions")

    def samples(self, backbone: Transformer) -> dict[str, str]:
        """Texts worth looking at during training, ``{title: Markdown}``; none by default."""
        return {}
