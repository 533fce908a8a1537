"""`lightning-nlp list [WHAT]`: what can be named in a configuration. Imports nothing heavy."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any, NoReturn

from lightning_nlp import registry
from lightning_nlp.backbone.config import SIZES, TransformerConfig
from lightning_nlp.errors import ConfigError, nearest

REFERENCE_VOCABULARY = 50257
DESCRIPTIONS = {
    "CausalLM": "predict the next token (GPT); perplexity, bits per byte, samples",
    "MaskedLM": "predict hidden tokens from both sides (BERT); fills <mask> in texts",
    "SequenceToSequence": "write a text for a text, by an encoder-decoder or a decoder; token accuracy, exact match",
    "SpanDenoising": "write what is missing from a text (T5, BART); token accuracy",
    "Translation": "a text in another language; BLEU, chrF",
    "Summarization": "a short text for a long one; ROUGE",
    "Dialogue": "an answer to what was said so far; token F1, BLEU, distinct n-grams",
    "TextClassification": "a class, several labels or a number for a text or two; accuracy, F1, correlations",
    "CausalLMData": "text packed into rows without padding",
    "MaskedLMData": "text packed into rows, other tokens hidden in every epoch",
    "PrefixLMData": "texts whose beginning is given, for a decoder",
    "PrefixPairsData": "pairs of texts, the first given, for a decoder",
    "DialogueData": "conversations, for a decoder; loss on responses",
    "DialoguePairsData": "conversations, for an encoder-decoder; every response an example",
    "SpanCorruptionData": "text with hidden spans, for an encoder-decoder (T5)",
    "DenoisingData": "text and damaged copies of it, for an encoder-decoder (BART)",
    "SequenceToSequenceData": "pairs of texts, batched by both lengths",
    "TextClassificationData": "texts, or pairs, with a class, several labels or a number, batched by length",
    "causal_lm": "each token from those before it",
    "prefix_lm": "the rest of a text from its beginning, read in both directions",
    "dialogue": "responses and their end from the turns before them",
    "span_corruption": "hidden spans from what is left of a text (T5)",
    "denoising": "a text from a damaged copy: infilling, sentence order, masks, gaps, rotation (BART)",
    "masked_lm": "hidden tokens, or whole words, from all others (80 % mask, 10 % random, 10 % kept)",
    "sequence_to_sequence": "a target from a source, each token from those before it",
    "classification": "one class, several labels or a number for a text",
    "pair_classification": "the same for two texts",
    "adamw": "AdamW, fused (lr, weight_decay, betas, eps)",
    "sgd": "stochastic gradient descent (lr, weight_decay, momentum, nesterov)",
    "adafactor": "Adam with a moment a row and a column (lr, weight_decay, momentum, eps, scale_parameter)",
    "lion": "sign of a moving average, half of AdamW's state (lr, weight_decay, betas)",
    "muon": "orthogonal updates of matrices in blocks, AdamW for the rest (as adamw; momentum, nesterov)",
    "constant": "warm-up, then the same learning rate",
    "linear": "warm-up, then a straight line to `final`",
    "cosine": "warm-up, then half a cosine to `final`",
    "inverse_sqrt": "warm-up, then 1 / sqrt(step) (Vaswani, also called Noam); needs no end",
    "polynomial": "warm-up, then a power of what is left, to `final` (power)",
    "wsd": "warm-up, stable, decay at the end to `final` (decay, form)",
    "restarts": "warm-up, then down to `final` in every cycle (cycle, cycle_growth, form)",
    "bleu": "word n-grams of translations, as sacreBLEU's, 0 to 100",
    "chrf": "character n-grams of translations, as sacreBLEU's, 0 to 100; chrF++ with word_order 2",
    "ter": "edits a word, as sacreBLEU's, in percent; lower is better",
    "rouge": "rouge1, rouge2, rougeL, rougeLsum of summaries, 0 to 1, in any script",
    "exact_match": "share of texts that are the reference",
    "token_f1": "F1 of words, as SQuAD's, 0 to 1",
    "distinct": "distinct1, distinct2: different words, and pairs, by all",
    "EMA": "moving average of the weights, validated and used in their place (--trainer.callbacks+=EMA)",
    "Pictures": "confusion matrix and attention maps (--trainer.callbacks+=Pictures); besides, all of Lightning's",
    "ddp": "every process a whole model and data of its own (--trainer.strategy ddp --trainer.devices 2)",
    "fsdp2": "weights, gradients and optimizer state dealt out to the processes",
    "tp": "layers dealt out to the processes of a node: heads, hidden units, vocabulary",
    "tp_fsdp2": "layers dealt out to pairs of processes, the rest to the pairs; other sizes: class ModelParallel",
    "gpt2": "GPT-2, decoder",
    "llama": "Llama 1 to 3, decoder",
    "mistral": "Mistral, decoder with a window",
    "qwen2": "Qwen 2 and 2.5, decoder",
    "qwen3": "Qwen 3, decoder",
    "numbers": "translation: numbers in English words -> in German words, made by rules",
    "number_chat": "dialogue: questions about numbers in German, made by rules",
    "number_facts": "classification: pairs of numbers in words, with properties and size, made by rules",
    "gpt_neox": "GPT-NeoX and Pythia, decoder",
    "bert": "BERT, encoder",
    "roberta": "RoBERTa, encoder",
    "distilbert": "DistilBERT, encoder",
    "t5": "T5, T5 v1.1 and Flan-T5, encoder-decoder",
    "bart": "BART, encoder-decoder",
    "marian": "Marian (Opus-MT), encoder-decoder",
    "stdlib_docs": "language modelling: documentation of the standard library, a document a module",
    "stdlib_summaries": "summarisation: documentation strings -> the line they begin with",
    "stdlib_modules": "classification: documentation string -> package of the standard library",
}
PARTS = {
    "arrangement": {
        "encoder": "every token sees every other (BERT)",
        "decoder": "tokens see those before them (GPT)",
        "encoder_decoder": "a decoder that also sees an encoded source (T5)",
    },
    "positions": {
        "rotary": "turned queries and keys; rotary_scaling stretches them: linear, ntk, yarn, llama3",
        "learned": "a vector a position",
        "sinusoidal": "waves, in the layout of `sinusoid`: interleaved, halves, fairseq",
        "alibi": "scores fall with the distance",
        "relative": "a learned bias a bucket of distances (T5)",
        "none": "order is known from the causal mask alone",
    },
    "attention": {
        "dot_product": "scaled products; with n_kv_heads grouped, qk_norm, attention_softcap",
        "additive": "v^T tanh(q + k) (Bahdanau); for short texts",
    },
    "norm": {"layernorm": "mean and variance", "rmsnorm": "root mean square"},
    "norm_placement": {
        "pre": "before each sub-layer (GPT-2)",
        "post": "after each residual sum (Vaswani, BERT)",
        "sandwich": "before and after each sub-layer (Gemma 2)",
    },
    "feedforward": {
        "gelu": "erf form, the fastest on a CPU",
        "gelu_tanh": "GPT-2's approximation",
        "relu": "Vaswani, T5",
        "relu2": "squared ReLU (Primer)",
        "silu": "Marian's swish",
        "swiglu": "gated with SiLU (Llama)",
        "geglu": "gated with GELU",
        "geglu_tanh": "gated with the approximation (T5 v1.1)",
        "reglu": "gated with ReLU",
    },
    "init": {
        "gpt2": "normal, residual outputs scaled by depth",
        "bert": "normal, cut at two deviations",
        "t5": "by fan, without a scale in attention",
        "xavier": "Glorot's uniform (Vaswani)",
        "small": "sqrt(2 / 5 D) (GPT-NeoX)",
        "mup": "learning rates transfer across widths; with mup_base_width",
    },
}
"""Choices of the backbone's fields."""
PATTERNS = {
    "window": "self-attention sees keys less than so many positions away",
    "full_attention_every": "with a window: every n-th layer sees everything",
    "global_tokens": "with a window, in an encoder: first tokens that see and are seen by all (Longformer)",
    "memory_length": "states of earlier rows a decoder also attends to (Transformer-XL)",
}
REGISTRIES = {
    "tasks": registry.TASKS,
    "data": registry.DATA,
    "objectives": registry.OBJECTIVES,
    "optimizers": registry.OPTIMIZERS,
    "schedules": registry.SCHEDULES,
    "metrics": registry.METRICS,
    "callbacks": registry.CALLBACKS,
    "strategies": registry.STRATEGIES,
    "families": registry.FAMILIES,
    "samples": registry.BUILDERS,
}
LISTS = ["backbones", "parts", *REGISTRIES]


def backbones() -> list[dict[str, Any]]:
    """Named sizes with parameter counts of a decoder with a vocabulary of 50257."""
    rows = []
    for name in SIZES:
        config = TransformerConfig(size=name, vocab_size=REFERENCE_VOCABULARY)
        rows.append(
            {
                "name": name,
                "layers": config.n_layers,
                "d_model": config.d_model,
                "heads": config.n_heads,
                "parameters": config.num_params(),
                "without_embedding": config.num_params(embeddings=False),
            }
        )
    return rows


def entries(what: str) -> list[dict[str, Any]]:
    """Rows of one list.

    Raises:
        ConfigError: there is no such list.
    """
    if what == "backbones":
        return backbones()
    if what == "parts":
        choices = {**PARTS, **{name: {"N": about} for name, about in PATTERNS.items()}}
        return [
            {"field": field, "name": name, "about": about}
            for field, names in choices.items()
            for name, about in names.items()
        ]
    if what not in REGISTRIES:
        raise ConfigError(f"there is no list of '{what}'{nearest(what, LISTS)} (known: {', '.join(LISTS)})")
    return [{"name": name, "about": DESCRIPTIONS[name]} for name in REGISTRIES[what]]


def show(what: str) -> str:
    """One list as aligned text."""
    if what == "backbones":
        lines = [f"backbones (parameters of a decoder with vocabulary {REFERENCE_VOCABULARY})"]
        for row in backbones():
            lines.append(
                f"  {row['name']:<8} {row['layers']:>3} layers  {row['d_model']:>5} wide  {row['heads']:>3} heads  "
                f"{row['parameters'] / 1e6:>8.1f}M  ({row['without_embedding'] / 1e6:.1f}M without embedding)"
            )
        return "\n".join(lines)
    if what == "parts":
        rows = [(f"{row['field']}: {row['name']}", row["about"]) for row in entries(what)]
        return "\n".join(["parts (fields of model.backbone)", *(f"  {name:<32} {about}" for name, about in rows)])
    return "\n".join([what, *(f"  {row['name']:<24} {row['about']}" for row in entries(what))])


class Arguments(argparse.ArgumentParser):
    """argparse whose mistakes are one line with the nearest right name."""

    def error(self, message: str) -> NoReturn:
        wrong = re.match(r"unrecognized arguments: (-[^\s=]+)|argument \S+ invalid choice: '(.*?)'", message)
        word, known = (wrong[1] or wrong[2]) if wrong else "", spellings(self)
        hint = nearest(word, known) if word not in known else ""  # of another verb: the right name in the wrong place
        raise ConfigError(f"{self.prog.removeprefix('lightning-nlp ')}: {message}{hint}")


def spellings(parser: argparse.ArgumentParser) -> set[str]:
    """Every option and verb of a parser and of the parsers below it."""
    found: set[str] = set()
    for action in parser._actions:
        found.update(action.option_strings)
        if isinstance(action, argparse._SubParsersAction):
            for verb, below in action.choices.items():
                found |= {verb} | spellings(below)
    return found


def plot(options: argparse.Namespace) -> int:
    """Draw schedules, as text or into a file.

    Raises:
        ConfigError: another list is asked for, or a schedule that is none.
    """
    from lightning_nlp.cli import schedule_plot

    steps = 1000 if options.steps is None else options.steps
    if options.what != "schedules" or options.json:
        raise ConfigError("list: --plot draws schedules: lightning-nlp list schedules --plot [FILE.png]")
    if steps < 1:
        raise ConfigError(f"list: --steps must be at least 1, not {steps}")
    found = schedule_plot.schedules(options.schedule)
    if options.plot:
        schedule_plot.picture(found, steps, Path(options.plot))
        print(options.plot)
    else:
        print(schedule_plot.text(found, steps))
    return 0


def main(argv: list[str]) -> int:
    """Print one list or all of them."""
    parser = Arguments(
        prog="lightning-nlp list", description="What can be named in a configuration.", allow_abbrev=False
    )
    parser.add_argument("what", nargs="?", help=f"one of: {', '.join(LISTS)}; default: all")
    parser.add_argument("--json", action="store_true", help="the same as JSON")
    drawing = parser.add_argument_group("list schedules")
    drawing.add_argument("--plot", nargs="?", const="", metavar="FILE.png", help="draw them; without a file, as text")
    drawing.add_argument(
        "--schedule", action="append", metavar="NAME[,KEY=VALUE...]", help="only this one; may be given several times"
    )
    drawing.add_argument("--steps", type=int, help="length of the run (default: 1000)")
    options = parser.parse_args(argv)
    if options.plot is not None:
        return plot(options)
    if options.schedule or options.steps is not None:
        raise ConfigError("list: --schedule and --steps go with --plot")
    names = [options.what] if options.what else ["tasks", "data", "backbones", "parts", *list(REGISTRIES)[2:]]
    if options.json:
        found = {name: entries(name) for name in names}
        print(json.dumps(found[options.what] if options.what else found, indent=2))
    else:
        print("\n\n".join(map(show, names)))
    return 0
