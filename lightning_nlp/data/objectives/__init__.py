"""Document to example: pure functions that know nothing of packing, batches or models; one file an objective."""

from lightning_nlp.data.objectives.causal_lm import causal_lm
from lightning_nlp.data.objectives.classification import classification
from lightning_nlp.data.objectives.example import IGNORED, Example, cut_to, in_turn, with_ends
from lightning_nlp.data.objectives.masked_lm import Masking, hide, masked_lm
from lightning_nlp.data.objectives.sequence_to_sequence import sequence_to_sequence

__all__ = [
    "IGNORED",
    "Example",
    "Masking",
    "causal_lm",
    "classification",
    "cut_to",
    "hide",
    "in_turn",
    "masked_lm",
    "sequence_to_sequence",
    "with_ends",
]
