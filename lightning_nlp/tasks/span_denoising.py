"""Denoising: write what is missing from a text; the pre-training objective of T5 and BART."""

from __future__ import annotations

from typing import Any

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequence


class SpanDenoising(SequenceToSequence):
    """Pre-train an encoder-decoder on SpanCorruptionData (T5) or DenoisingData (BART).

    Args:
        backbone: see :class:`~lightning_nlp.tasks.sequence_to_sequence.SequenceToSequence`, as for all other arguments.
        metrics: scores of decoded texts; none by default: there are many ways to fill a gap.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        *,
        metrics: list[str] = [],  # noqa: B006 - copied
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, metrics=metrics, **kwargs)
