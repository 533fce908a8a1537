"""What heads that predict tokens at labelled positions have in common."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.backbone.targets import IGNORED
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.metrics.examples import Record
from lightning_nlp.metrics.tokens import TokenMetrics
from lightning_nlp.tasks.head import Head, Losses

INPUTS = ("positions", "segments", "source_tokens", "source_segments", "source_positions", "carried", "prefix_mask")
SCORED_AT_ONCE = 1024
"""Rows of scores held in memory when the likeliest tokens are looked up."""
HARDEST, BEFORE = 5, 12
"""Of each example in a report: the tokens with the highest loss, and so many tokens before each."""


class TokenHead(Head):
    """Output matrix (the embedding when tied), cross-entropy and accuracy of ``labels [B, T]`` (-100: no loss).

    Args:
        loss: what the training loss has besides; evaluation measures plain cross-entropy.
    """

    fewest_labels: ClassVar[int] = 8
    """The mean loss of fewer says little: the end of a document, alone in a row, is not its worst part."""

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
        labels, hidden = batch["labels"].flatten(), self.hidden(backbone, batch)
        self.observe(backbone, batch, hidden)
        hidden, labels = hidden.flatten(0, 1)[labels != -100], labels[labels != -100]
        correct = torch.zeros((), device=labels.device)
        for part, wanted in zip(hidden.split(SCORED_AT_ONCE), labels.split(SCORED_AT_ONCE), strict=True):
            correct += (self.scores(backbone, part).argmax(-1) == wanted).sum()
        loss_sum, count = self.output.loss(hidden, backbone.embedding_weight, labels)
        self.metrics.update(loss_sum, count, correct, batch.get("origin"))

    def compute(self) -> dict[str, float]:
        return self.metrics.compute()

    def reset(self) -> None:
        self.metrics.reset()

    # Examples of a report -----------------------------------------------------------------------------------------

    def observe(self, backbone: Transformer, batch: dict[str, Any], hidden: Tensor) -> None:
        """Offer the documents of a batch, with the mean loss of their labels, to whoever wants to read examples."""
        if self.examples is None or self.tokenizer is None:
            return
        losses, guesses = self.each(backbone, hidden, batch["labels"])
        labelled, segments = (batch["labels"] != IGNORED).cpu(), batch["segments"].cpu()
        for row, names in enumerate(batch["example_ids"]):
            for number, name in enumerate(names, 1):
                there = labelled[row] & (segments[row] == number)
                if count := int(there.sum()):
                    make = partial(self.record, batch, row, segments[row] == number, losses[row], guesses[row])
                    self.examples.offer(name, float(losses[row][there].mean()), make, count >= self.fewest_labels)

    def each(self, backbone: Transformer, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (float64) and likeliest token at every label: ``[B, T]`` each, in main memory; 0 without a label."""
        losses = torch.zeros(labels.shape, dtype=torch.float64)
        guesses = torch.zeros(labels.shape, dtype=torch.int64)
        there = labels != IGNORED
        parts = zip(hidden[there].split(SCORED_AT_ONCE), labels[there].split(SCORED_AT_ONCE), strict=True)
        found = []
        for states, wanted in parts:
            scores = self.scores(backbone, states).float()
            found.append((F.cross_entropy(scores, wanted, reduction="none").double().cpu(), scores.argmax(-1).cpu()))
        losses[there.cpu()], guesses[there.cpu()] = (torch.cat(side) for side in zip(*found, strict=True))
        return losses, guesses

    def record(self, batch: dict[str, Any], row: int, there: Tensor, losses: Tensor, guesses: Tensor) -> Record:
        """A document to read: its text, what is predicted where it has labels, and its hardest tokens.

        Args:
            batch: the batch it is in.
            row: likewise.
            there: ``[T]``, its places in the row.
            losses, guesses: ``[T]``, at its labels.
        """
        assert self.tokenizer is not None
        tokens, labels = batch["tokens"][row].cpu()[there], batch["labels"][row].cpu()[there]
        losses, guesses, wanted = losses[there], guesses[there], labels != IGNORED
        text = self.tokenizer.decode(tokens.tolist())
        prediction = self.tokenizer.decode(guesses[wanted].tolist())
        target = {} if bool(wanted.all()) else {"target": self.tokenizer.decode(labels[wanted].tolist())}
        hardest = []
        for place in losses.topk(min(HARDEST, int(wanted.sum()))).indices.tolist():
            hardest.append(
                {
                    "after": self.tokenizer.decode(tokens[max(place + 1 - BEFORE, 0) : place + 1].tolist()),
                    "target": self.tokenizer.shown(int(labels[place])),
                    "prediction": self.tokenizer.shown(int(guesses[place])),
                    "loss": float(losses[place]),
                }
            )
        return {"text": text, "prediction": prediction, **target, "hardest": hardest}
