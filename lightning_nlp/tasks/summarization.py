"""Summarisation: sequence to sequence, scored with ROUGE."""

from __future__ import annotations

from typing import Any

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequence


class Summarization(SequenceToSequence):
    """Train a model to summarise.

    Args:
        backbone: see :class:`~lightning_nlp.tasks.sequence_to_sequence.SequenceToSequence`, as for all other arguments.
        generation: how summaries are decoded: beam search in which no three tokens come twice (Paulus et al. 2018).
        metrics: scores of summaries.
        decode_examples: first rows of the validation split summarised, greedily, at every validation of the training.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        *,
        generation: GenerationConfig = GenerationConfig(  # noqa: B008 - frozen
            max_new_tokens=128, beams=4, no_repeat_ngram_size=3, no_repeat_ngram_scope="new"
        ),
        metrics: list[str] = ["rouge"],  # noqa: B006 - copied
        decode_examples: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            backbone,
            generation=generation,
            metrics=metrics,
            decode_examples=decode_examples,
            **kwargs,
        )
