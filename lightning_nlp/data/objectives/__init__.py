"""Document to example: pure functions that know nothing of packing, batches or models; one file an objective."""

from lightning_nlp.data.objectives.causal_lm import causal_lm
from lightning_nlp.data.objectives.classification import classification, pair_classification
from lightning_nlp.data.objectives.denoising import Noise, denoising
from lightning_nlp.data.objectives.dialogue import Turn, consecutive, dialogue, windows
from lightning_nlp.data.objectives.example import IGNORED, Example, cut_to, in_turn, with_ends
from lightning_nlp.data.objectives.masked_lm import Masking, hide, masked_lm
from lightning_nlp.data.objectives.prefix_lm import cut_pair, prefix_lm, split_point
from lightning_nlp.data.objectives.rolling import rolling_windows
from lightning_nlp.data.objectives.sequence_to_sequence import sequence_to_sequence
from lightning_nlp.data.objectives.span_corruption import Spans, span_corruption

__all__ = [
    "IGNORED",
    "Example",
    "Masking",
    "Noise",
    "Spans",
    "Turn",
    "causal_lm",
    "classification",
    "consecutive",
    "cut_pair",
    "cut_to",
    "denoising",
    "dialogue",
    "hide",
    "in_turn",
    "masked_lm",
    "pair_classification",
    "prefix_lm",
    "rolling_windows",
    "sequence_to_sequence",
    "span_corruption",
    "split_point",
    "windows",
    "with_ends",
]
