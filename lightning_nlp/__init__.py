"""An experiment platform for scaling Transformers over NLP tasks.

Public names are resolved on first use, so that ``import lightning_nlp`` and the light commands stay instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Trainer": "lightning_nlp.trainer",
    "load": "lightning_nlp.loading",
    "save_adapters": "lightning_nlp.loading",
    "load_adapters": "lightning_nlp.loading",
    "TransformerConfig": "lightning_nlp.backbone.config",
    "Transformer": "lightning_nlp.backbone.transformer",
    "CausalLM": "lightning_nlp.tasks.causal_lm",
    "MaskedLM": "lightning_nlp.tasks.masked_lm",
    "SequenceToSequence": "lightning_nlp.tasks.sequence_to_sequence",
    "SpanDenoising": "lightning_nlp.tasks.span_denoising",
    "Translation": "lightning_nlp.tasks.translation",
    "Summarization": "lightning_nlp.tasks.summarization",
    "Dialogue": "lightning_nlp.tasks.dialogue",
    "TextClassification": "lightning_nlp.tasks.text_classification",
    "CausalLMData": "lightning_nlp.data.causal_lm",
    "MaskedLMData": "lightning_nlp.data.masked_lm",
    "PrefixLMData": "lightning_nlp.data.prefix_lm",
    "PrefixPairsData": "lightning_nlp.data.prefix_lm",
    "DialogueData": "lightning_nlp.data.dialogue",
    "DialoguePairsData": "lightning_nlp.data.dialogue_pairs",
    "SpanCorruptionData": "lightning_nlp.data.span_corruption",
    "DenoisingData": "lightning_nlp.data.denoising",
    "SequenceToSequenceData": "lightning_nlp.data.sequence_to_sequence",
    "TextClassificationData": "lightning_nlp.data.text_classification",
    "AdapterConfig": "lightning_nlp.backbone.adapters",
    "LossConfig": "lightning_nlp.backbone.loss",
    "GenerationConfig": "lightning_nlp.decoding.sampling",
    "OptimizerConfig": "lightning_nlp.optim.optimizers",
    "ScheduleConfig": "lightning_nlp.optim.schedules",
    "TokenizerConfig": "lightning_nlp.data.tokenizers.tokenizer",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lightning_nlp' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
