"""Loss and perplexities of language models, from sums that ranks can add."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric


class LanguageModelMetrics(Metric):
    """Mean loss a label and its exponential; and of the text itself, which any tokenizer cuts up in its own way, the
    perplexity a word, the perplexity a byte, and the bits a byte.

    The latter three are defined as in EleutherAI's lm-evaluation-harness: the loss of all tokens of the text, without
    the end token, divided by its words or its utf-8 bytes.
    """

    full_state_update = False
    signature = "per:label|base:e"
    text_signature = "of:text without end token|words:split at white space|bytes:utf-8"
    loss_sum: Tensor
    count: Tensor
    bytes: Tensor
    words: Tensor
    text_loss: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("loss_sum", "count", "bytes", "words", "text_loss"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        loss_sum: Tensor,
        count: Tensor,
        bytes: Tensor,
        words: Tensor | int = 0,
        text_loss: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            loss_sum: in nats, of all labels.
            count: labels.
            bytes: of the text that the labels spell, in utf-8; 0: unknown.
            words: of that text; 0: unknown.
            text_loss: the part of ``loss_sum`` that is not of end tokens; by default all of it.
        """
        self.loss_sum += loss_sum.double()
        self.count += count.double()
        self.bytes += bytes.double()
        self.words += words
        self.text_loss += (loss_sum if text_loss is None else text_loss).double()

    def compute(self) -> dict[str, float]:
        """``loss``, ``perplexity`` and, where bytes and words are known, what is measured by them."""
        loss = float(self.loss_sum) / max(float(self.count), 1.0)
        values = {"loss": loss, "perplexity": bounded_exp(loss)}
        text_loss, size, words = float(self.text_loss), float(self.bytes), float(self.words)
        if size > 0:
            values["bits_per_byte"] = text_loss / math.log(2) / size
            values["byte_perplexity"] = bounded_exp(text_loss / size)
        if words > 0:
            values["word_perplexity"] = bounded_exp(text_loss / words)
        return values


def bounded_exp(value: float) -> float:
    """The exponential, without overflow."""
    return math.exp(min(value, 700.0))
