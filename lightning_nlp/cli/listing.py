"""`lightning-nlp list [WHAT]`: what can be named in a configuration. Imports nothing heavy."""

from __future__ import annotations

import argparse
import json
from typing import Any

from lightning_nlp import registry
from lightning_nlp.backbone.config import SIZES, TransformerConfig
from lightning_nlp.errors import ConfigError, nearest

REFERENCE_VOCABULARY = 50257
DESCRIPTIONS = {
    "CausalLM": "predict the next token (GPT); perplexity, bits per byte, samples",
    "TextClassification": "one label a text; accuracy, macro-F1, Matthews correlation",
    "CausalLMData": "text packed into rows without padding",
    "TextClassificationData": "texts with a label, batched by length",
    "causal_lm": "each token from those before it",
    "classification": "one class for a text",
    "adamw": "AdamW, fused (lr, weight_decay, betas, eps)",
    "sgd": "stochastic gradient descent (lr, weight_decay, momentum, nesterov)",
    "constant": "warm-up, then the same learning rate",
    "linear": "warm-up, then a straight line to `final`",
    "cosine": "warm-up, then half a cosine to `final`",
    "stdlib_docs": "language modelling: documentation of the standard library, a document a module",
    "stdlib_modules": "classification: documentation string -> package of the standard library",
}
REGISTRIES = {
    "tasks": registry.TASKS,
    "data": registry.DATA,
    "objectives": registry.OBJECTIVES,
    "optimizers": registry.OPTIMIZERS,
    "schedules": registry.SCHEDULES,
    "samples": registry.BUILDERS,
}


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
    if what not in REGISTRIES:
        known = ["backbones", *REGISTRIES]
        raise ConfigError(f"there is no list of '{what}'{nearest(what, known)} (known: {', '.join(known)})")
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
    return "\n".join([what, *(f"  {row['name']:<24} {row['about']}" for row in entries(what))])


class Arguments(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"list: {message}")


def main(argv: list[str]) -> int:
    """Print one list or all of them."""
    parser = Arguments(prog="lightning-nlp list", description=__doc__, allow_abbrev=False)
    parser.add_argument("what", nargs="?", help=", ".join(["backbones", *REGISTRIES]))
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args(argv)
    names = [options.what] if options.what else ["tasks", "data", "backbones", *list(REGISTRIES)[2:]]
    if options.json:
        found = {name: entries(name) for name in names}
        print(json.dumps(found[options.what] if options.what else found, indent=2))
    else:
        print("\n\n".join(map(show, names)))
    return 0
