"""Dialogue: an answer to what was said so far, by a decoder or by an encoder-decoder."""

from __future__ import annotations

from typing import Any

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequence


class Dialogue(SequenceToSequence):
    """Train a model to answer: a decoder on DialogueData, an encoder-decoder on DialoguePairsData.

    Args:
        backbone: see :class:`~lightning_nlp.tasks.sequence_to_sequence.SequenceToSequence`, as for all other arguments.
        generation: how answers are decoded.
        metrics: scores of answers; the last one of each conversation of a decoder, every one of an encoder-decoder.
        decode_examples: first rows of the validation split answered, greedily, at every validation of the training.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        *,
        generation: GenerationConfig = GenerationConfig(max_new_tokens=64),  # noqa: B008 - frozen
        metrics: list[str] = ["token_f1", "bleu", "distinct"],  # noqa: B006 - copied
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
