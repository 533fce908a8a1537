"""What heads that predict tokens at labelled positions have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.metrics.tokens import TokenMetrics
from lightning_nlp.tasks.head import Head, Losses

INPUTS = ("positions", "segments", "source_tokens", "source_segments", "source_positions", "carried", "prefix_mask")
SCORED_AT_ONCE = 1024
"""Rows of scores held in memory when the likeliest tokens are looked up."""


class TokenHead(Head):
    """Output matrix (the embedding when tied), cross-entropy and accuracy of ``labels [B, T]`` (-100: no loss).

    Args:
        loss: what the training loss has besides; evaluation measures plain cross-entropy.
    """

    def __init__(self, loss: LossConfig = LossConfig()) -> None:  # noqa: B008 - frozen
        super().__init__()
        self.sources: list[str] = []
        self.loss_config: LossConfig = LossConfig(**loss) if isinstance(loss, dict) else loss

    def resolve(self, facts: dict[str, Any]) -> None:
        self.sources = facts.get("sources", [])

    def build(self, config: TransformerConfig) -> None:
        super().build(config)
        self.output = TokenOutput(config)
        self.pad_id = config.pad_id
        self.metrics = TokenMetrics(self.sources)

    def hidden(self, backbone: Transformer, batch: dict[str, Any]) -> Tensor:
        """Hidden states ``[B, T, D]`` at the tokens of a batch, with its source where it has one."""
        return backbone(batch["tokens"], **{name: batch[name] for name in INPUTS if name in batch})

    def written(self, backbone: Transformer, hidden: Tensor) -> Tensor:
        """:meth:`scores` of the tokens that there are: a model's vocabulary may have more rows than its tokenizer."""
        assert self.tokenizer is not None
        return self.scores(backbone, hidden)[..., : self.tokenizer.vocab_size]

    def scores(self, backbone: Transformer, hidden: Tensor) -> Tensor:
        """Scores ``[..., V]`` of tokens at ``hidden [..., D]``."""
        return self.output(hidden, backbone.embedding_weight)

    def forward(self, backbone: Transformer, batch: dict[str, Any]) -> Losses:
        options = {**vars(self.loss_config), "pad_id": self.pad_id}
        return {"loss": self.loss(backbone, self.hidden(backbone, batch), batch["labels"], **options)}

    def loss(self, backbone: Transformer, hidden: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Cross-entropy (sum, count) of ``labels [..]`` at ``hidden [.., D]``; plain without ``options``."""
        return self.output.loss(hidden.flatten(0, -2), backbone.embedding_weight, labels.flatten(), **options)

    def update(self, backbone: Transformer, batch: dict[str, Any]) -> None:
        """Plain cross-entropy, whatever the training loss is, and the number of labels that are the likeliest token."""
        labels = batch["labels"].flatten()
        hidden, labels = self.hidden(backbone, batch).flatten(0, 1)[labels != -100], labels[labels != -100]
        correct = torch.zeros((), device=labels.device)
        for part, wanted in zip(hidden.split(SCORED_AT_ONCE), labels.split(SCORED_AT_ONCE), strict=True):
            correct += (self.scores(backbone, part).argmax(-1) == wanted).sum()
        loss_sum, count = self.output.loss(hidden, backbone.embedding_weight, labels)
        self.metrics.update(loss_sum, count, correct, batch.get("origin"))

    def compute(self) -> dict[str, float]:
        return self.metrics.compute()

    def reset(self) -> None:
        self.metrics.reset()
