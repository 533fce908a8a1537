"""Loss and perplexities of language models, from sums that ranks can add."""

from __future__ import annotations

import math
from typing import ClassVar

from torch import Tensor

from lightning_nlp.metrics.by_source import SumsBySource


class LanguageModelMetrics(SumsBySource):
    """Mean loss a label and its exponential; and of the text itself, which any tokenizer cuts up in its own way, the
    perplexity a word, the perplexity a byte, and the bits a byte.

    The latter three are defined as in EleutherAI's lm-evaluation-harness: the loss of all tokens of the text, without
    the end token, divided by its words or its utf-8 bytes.
    """

    signature = "per:label|base:e"
    text_signature = "of:text without end token|words:split at white space|bytes:utf-8"
    names: ClassVar[tuple[str, ...]] = ("loss_sum", "count", "bytes", "words", "text_loss")

    def update(
        self,
        loss_sum: Tensor,
        count: Tensor,
        bytes: Tensor,
        source: str | None = None,
        *,
        words: Tensor | None = None,
        text_loss: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            loss_sum: in nats, of all labels.
            count: labels.
            bytes: of the text that the labels spell, in utf-8; 0: unknown.
            source: of a mixture, that all of the batch is from.
            words: of that text; None: unknown.
            text_loss: the part of ``loss_sum`` that is not of end tokens; by default all of it.
        """
        words = bytes.new_zeros(()) if words is None else words
        text_loss = loss_sum if text_loss is None else text_loss
        self.add(source, loss_sum=loss_sum, count=count, bytes=bytes, words=words, text_loss=text_loss)

    def measured(self, sums: dict[str, float]) -> dict[str, float]:
        """``loss``, ``perplexity`` and, where bytes and words are known, what is measured by them."""
        loss = sums["loss_sum"] / max(sums["count"], 1.0)
        values = {"loss": loss, "perplexity": bounded_exp(loss)}
        if sums["bytes"] > 0:
            values["bits_per_byte"] = sums["text_loss"] / math.log(2) / sums["bytes"]
            values["byte_perplexity"] = bounded_exp(sums["text_loss"] / sums["bytes"])
        if sums["words"] > 0:
            values["word_perplexity"] = bounded_exp(sums["text_loss"] / sums["words"])
        return values


def bounded_exp(value: float) -> float:
    """The exponential, without overflow."""
    return math.exp(min(value, 700.0))
