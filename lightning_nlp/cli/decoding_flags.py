"""Flags of the commands that write text: how it is decoded, where the run's own settings are not wanted."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.choice import FORMS

if TYPE_CHECKING:
    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

OVERRIDES: dict[str, dict[str, Any]] = {
    "max_new_tokens": {"type": int, "help": "tokens to add at most"},
    "temperature": {"type": float, "help": "0 is greedy; 1 samples from the model as it is"},
    "top_k": {"type": int, "help": "sample among the k likeliest tokens"},
    "top_p": {"type": float, "help": "sample among the likeliest tokens that hold this probability"},
    "min_p": {"type": float, "help": "sample among tokens with this share of the best one's probability"},
    "typical_p": {"type": float, "help": "sample among typical tokens that hold this probability"},
    "min_new_tokens": {"type": int, "help": "no end before this many tokens"},
    "force_eos": {"action": "store_true", "default": None, "help": "the last token allowed is the end token"},
    "repetition_penalty": {"type": float, "help": "above 1, tokens seen before become less likely"},
    "no_repeat_ngram_size": {"type": int, "help": "no n-gram of this size twice"},
    "no_repeat_ngram_scope": {"help": "n-grams that count: of the new text, of the prompt too, or of the source too"},
    "beams": {"type": int, "help": "beam search with so many hypotheses, without sampling"},
    "length_norm": {"help": "of a beam search: none, average or gnmt"},
    "length_penalty": {"type": float, "help": "exponent of the length; larger ones prefer longer texts"},
    "stop": {"help": "when a beam search ends: finished, heuristic or never"},
    "n_best": {"type": int, "help": "texts to show: of a beam search, or so many samples"},
}
"""Settings of the run that flags of the same name change."""


def arguments(verb: str, about: str, *, several: bool = True) -> argparse.ArgumentParser:
    """A parser with the flags of all commands that write text.

    Args:
        verb: name of the command; about: what it does.
        several: it can show several texts with their scores.
    """
    parser = Arguments(prog=f"lightning-nlp {verb}", description=about, allow_abbrev=False)
    parser.add_argument("--run", required=True, help="run directory, or a checkpoint file in one")
    parser.add_argument("--checkpoint", "--ckpt_path", default="best", help=f"{FORMS} (default: best)")
    for name, settings in OVERRIDES.items():
        if several or name != "n_best":
            parser.add_argument(f"--{name}", **settings)
    parser.add_argument("--seed", type=int, help="of the random numbers (default: another text every time)")
    parser.add_argument("--bad_word", action="append", help="text that never appears; may be repeated")
    parser.add_argument("--prefix", help="what every new text begins with")
    if several:
        scores = "before each text its score and its log-probability, with tabs between them"
        parser.add_argument("--scores", action="store_true", help=scores)
    return parser


def changed(
    generation: GenerationConfig, options: argparse.Namespace, bad_words: list[list[int]] | None
) -> GenerationConfig:
    """The run's settings with those of the command line; asking for beams, or for temperature 0, ends sampling."""
    given = {name: getattr(options, name, None) for name in OVERRIDES}
    settings = {name: value for name, value in given.items() if value is not None}
    if bad_words is not None:
        settings["bad_words"] = bad_words
    if settings.get("beams", 1) > 1:
        settings.setdefault("temperature", 0.0)
    elif settings.get("temperature", 0) > 0:
        settings.setdefault("beams", 1)
    if settings.get("temperature") == 0:
        settings = {"top_k": None, "top_p": None, "min_p": None, "typical_p": None, **settings}
    if {"beams", "temperature"} & set(settings):  # another way to decode: what the run asked for does not count
        settings.setdefault("n_best", 1)
    return dataclasses.replace(generation, **settings, seed=options.seed)


def spellings(tokenizer: Tokenizer, word: str) -> list[list[int]]:
    """Token ids of a word at the start of a text and after a space."""
    found = [tokenizer.encode(text) for text in (word, f" {word}")]
    if not all(found):
        raise ConfigError("--bad_word is empty: give a text")
    return found if found[0] != found[1] else found[:1]
