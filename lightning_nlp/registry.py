"""Names a user may write, and where each is built. Plain strings, so that listing them imports nothing heavy."""

from __future__ import annotations

import importlib
from typing import Any

from lightning_nlp.errors import ConfigError, nearest

TASKS = {
    "CausalLM": "lightning_nlp.tasks.causal_lm:CausalLM",
    "MaskedLM": "lightning_nlp.tasks.masked_lm:MaskedLM",
    "SequenceToSequence": "lightning_nlp.tasks.sequence_to_sequence:SequenceToSequence",
    "SpanDenoising": "lightning_nlp.tasks.span_denoising:SpanDenoising",
    "Translation": "lightning_nlp.tasks.translation:Translation",
    "Summarization": "lightning_nlp.tasks.summarization:Summarization",
    "Dialogue": "lightning_nlp.tasks.dialogue:Dialogue",
    "TextClassification": "lightning_nlp.tasks.text_classification:TextClassification",
}
DATA = {
    "CausalLMData": "lightning_nlp.data.causal_lm:CausalLMData",
    "MaskedLMData": "lightning_nlp.data.masked_lm:MaskedLMData",
    "PrefixLMData": "lightning_nlp.data.prefix_lm:PrefixLMData",
    "PrefixPairsData": "lightning_nlp.data.prefix_lm:PrefixPairsData",
    "DialogueData": "lightning_nlp.data.dialogue:DialogueData",
    "DialoguePairsData": "lightning_nlp.data.dialogue_pairs:DialoguePairsData",
    "SpanCorruptionData": "lightning_nlp.data.span_corruption:SpanCorruptionData",
    "DenoisingData": "lightning_nlp.data.denoising:DenoisingData",
    "SequenceToSequenceData": "lightning_nlp.data.sequence_to_sequence:SequenceToSequenceData",
    "TextClassificationData": "lightning_nlp.data.text_classification:TextClassificationData",
}
OBJECTIVES = {
    "causal_lm": "lightning_nlp.data.objectives:causal_lm",
    "masked_lm": "lightning_nlp.data.objectives:masked_lm",
    "prefix_lm": "lightning_nlp.data.objectives:prefix_lm",
    "dialogue": "lightning_nlp.data.objectives:dialogue",
    "span_corruption": "lightning_nlp.data.objectives:span_corruption",
    "denoising": "lightning_nlp.data.objectives:denoising",
    "sequence_to_sequence": "lightning_nlp.data.objectives:sequence_to_sequence",
    "classification": "lightning_nlp.data.objectives:classification",
    "pair_classification": "lightning_nlp.data.objectives:pair_classification",
}
OPTIMIZERS = {
    "adamw": "lightning_nlp.optim.optimizers:adamw",
    "sgd": "lightning_nlp.optim.optimizers:sgd",
    "adafactor": "lightning_nlp.optim.adafactor:adafactor",
    "lion": "lightning_nlp.optim.lion:lion",
    "muon": "lightning_nlp.optim.muon:muon",
}
SCHEDULES = {
    "constant": "lightning_nlp.optim.schedules:constant",
    "linear": "lightning_nlp.optim.schedules:linear",
    "cosine": "lightning_nlp.optim.schedules:cosine",
    "inverse_sqrt": "lightning_nlp.optim.schedules:inverse_sqrt",
    "polynomial": "lightning_nlp.optim.schedules:polynomial",
    "wsd": "lightning_nlp.optim.schedules:wsd",
    "restarts": "lightning_nlp.optim.schedules:restarts",
}
BUILDERS = {
    "stdlib_docs": "lightning_nlp.data.builders.stdlib_docs:build",
    "stdlib_modules": "lightning_nlp.data.builders.stdlib_modules:build",
    "stdlib_summaries": "lightning_nlp.data.builders.stdlib_summaries:build",
    "numbers": "lightning_nlp.data.builders.numbers:build",
    "number_chat": "lightning_nlp.data.builders.number_chat:build",
    "number_facts": "lightning_nlp.data.builders.number_facts:build",
}
METRICS = {
    "bleu": "lightning_nlp.metrics.translation:BLEU",
    "chrf": "lightning_nlp.metrics.translation:ChrF",
    "ter": "lightning_nlp.metrics.translation:TER",
    "rouge": "lightning_nlp.metrics.rouge:ROUGE",
    "exact_match": "lightning_nlp.metrics.answers:ExactMatch",
    "token_f1": "lightning_nlp.metrics.answers:TokenF1",
    "distinct": "lightning_nlp.metrics.distinct:Distinct",
}
CALLBACKS = {
    "EMA": "lightning_nlp.callbacks.ema:EMA",
    "Pictures": "lightning_nlp.callbacks.pictures:Pictures",
}
STRATEGIES = {
    "ddp": "lightning.pytorch.strategies:DDPStrategy",
    "fsdp2": "lightning_nlp.strategies.model_parallel:ModelParallel",
    "tp": "lightning_nlp.strategies.model_parallel:ModelParallel",
    "tp_fsdp2": "lightning_nlp.strategies.model_parallel:ModelParallel",
}
"""Names of ``trainer.strategy`` that this package looks after; Lightning has more."""
FAMILIES = {
    "gpt2": "lightning_nlp.interop.gpt2:GPT2",
    "llama": "lightning_nlp.interop.llama:Llama",
    "mistral": "lightning_nlp.interop.llama:Mistral",
    "qwen2": "lightning_nlp.interop.llama:Qwen2",
    "qwen3": "lightning_nlp.interop.llama:Qwen3",
    "gpt_neox": "lightning_nlp.interop.gpt_neox:GPTNeoX",
    "bert": "lightning_nlp.interop.bert:BERT",
    "roberta": "lightning_nlp.interop.bert:RoBERTa",
    "distilbert": "lightning_nlp.interop.bert:DistilBERT",
    "t5": "lightning_nlp.interop.t5:T5",
    "bart": "lightning_nlp.interop.bart:BART",
    "marian": "lightning_nlp.interop.bart:Marian",
}


def load(registry: dict[str, str], name: str, what: str = "name") -> Any:
    """Import and return what ``name`` stands for.

    Raises:
        ConfigError: the name is not in the registry; the message lists the known ones.
    """
    if name not in registry:
        raise ConfigError(f"unknown {what} '{name}'{nearest(name, registry)} (known: {', '.join(registry)})")
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
