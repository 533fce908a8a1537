"""Translation: sequence to sequence, scored with BLEU and chrF."""

from __future__ import annotations

from typing import Any

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequence


class Translation(SequenceToSequence):
    """Train a model to translate.

    Args:
        backbone: see :class:`~lightning_nlp.tasks.sequence_to_sequence.SequenceToSequence`, as for all other arguments.
        generation: how translations are decoded: beam search, divided by length (Vaswani et al. 2017 use 4 beams).
        metrics: scores of translations.
        decode_examples: first rows of the validation split translated, greedily, at every validation of the training.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        *,
        generation: GenerationConfig = GenerationConfig(max_new_tokens=128, beams=4),  # noqa: B008 - frozen
        metrics: list[str] = ["bleu", "chrf"],  # noqa: B006 - copied
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
