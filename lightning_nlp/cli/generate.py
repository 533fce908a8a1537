"""`lightning-nlp generate`: text from a trained language model, once or in a conversation with the terminal."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.choice import FORMS

if TYPE_CHECKING:
    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer


def arguments() -> argparse.ArgumentParser:
    parser = Arguments(prog="lightning-nlp generate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--run", required=True, help="run directory, or a checkpoint file in one")
    parser.add_argument("--checkpoint", "--ckpt_path", default="best", help=f"{FORMS} (default: best)")
    parser.add_argument("--prompt", action="append", help="text to continue; may be repeated; without it, read stdin")
    parser.add_argument("--max_new_tokens", type=int, help="tokens to add at most")
    parser.add_argument("--temperature", type=float, help="0 is greedy; 1 samples from the model as it is")
    parser.add_argument("--top_k", type=int, help="sample among the k likeliest tokens")
    parser.add_argument("--top_p", type=float, help="sample among the likeliest tokens that hold this probability")
    parser.add_argument("--min_p", type=float, help="sample among tokens with this share of the best one's probability")
    parser.add_argument("--typical_p", type=float, help="sample among typical tokens that hold this probability")
    parser.add_argument("--seed", type=int, help="of the random numbers (default: another text every time)")
    parser.add_argument("--min_new_tokens", type=int, help="no end before this many tokens")
    parser.add_argument("--repetition_penalty", type=float, help="above 1, tokens seen before become less likely")
    parser.add_argument("--no_repeat_ngram_size", type=int, help="no n-gram of this size twice")
    parser.add_argument("--bad_word", action="append", help="text that never appears; may be repeated")
    parser.add_argument("--beams", type=int, help="beam search with so many hypotheses, without sampling")
    parser.add_argument("--length_norm", help="of a beam search: none, average or gnmt")
    parser.add_argument("--length_penalty", type=float, help="exponent of the length; larger ones prefer longer texts")
    parser.add_argument("--stop", help="when a beam search ends: finished, heuristic or never")
    return parser


OVERRIDES = [
    "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "typical_p", "min_new_tokens", "repetition_penalty",
    "no_repeat_ngram_size", "beams", "length_norm", "length_penalty", "stop",
]  # fmt: skip
"""Settings of the run that flags of the same name change."""


def changed(
    generation: GenerationConfig, options: argparse.Namespace, bad_words: list[list[int]] | None
) -> GenerationConfig:
    """The run's settings with those of the command line; asking for beams, or for temperature 0, ends sampling."""
    given = {name: getattr(options, name) for name in OVERRIDES}
    settings = {name: value for name, value in given.items() if value is not None}
    if bad_words is not None:
        settings["bad_words"] = bad_words
    if settings.get("beams", 1) > 1:
        settings.setdefault("temperature", 0.0)
    elif settings.get("temperature", 0) > 0:
        settings.setdefault("beams", 1)
    if settings.get("temperature") == 0:
        settings = {"top_k": None, "top_p": None, "min_p": None, "typical_p": None, **settings}
    return dataclasses.replace(generation, **settings, seed=options.seed)


def spellings(tokenizer: Tokenizer, word: str) -> list[list[int]]:
    """Token ids of a word at the start of a text and after a space."""
    found = [tokenizer.encode(text) for text in (word, f" {word}")]
    if not all(found):
        raise ConfigError("--bad_word is empty: give a text")
    return found if found[0] != found[1] else found[:1]


def main(argv: list[str]) -> int:
    """Print the prompt with its continuation for every prompt."""
    options = arguments().parse_args(argv)
    from lightning_nlp.cli.app import quieten

    quieten()
    import torch

    from lightning_nlp.loading import load
    from lightning_nlp.tasks.causal_lm import CausalLMHead
    from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequenceHead

    module = load(options.run, options.checkpoint)
    head = module.head
    if not isinstance(head, (CausalLMHead, SequenceToSequenceHead)):
        raise ConfigError(f"run '{options.run}' is a {type(module).__name__}: generate needs a language model")
    backbone, tokenizer = module.backbone, head.tokenizer
    if backbone is None or tokenizer is None:
        raise ConfigError(f"run '{options.run}' has no tokenizer.json: it cannot read a prompt")
    words = [ids for word in options.bad_word or [] for ids in spellings(tokenizer, word)]
    generation = changed(head.generation, options, words or None)

    def answer(prompt: str) -> None:
        if isinstance(head, SequenceToSequenceHead):  # the answer to a text, not its continuation
            source = torch.tensor([head.encode_source(prompt)], device=backbone.embedding_weight.device)
            print(*head.answers(backbone, source, generation=generation), flush=True)
            return
        with torch.inference_mode():
            (new,) = head.continuations(backbone, [head.encode_prompt(prompt)], generation)
        print(head.shown(prompt, new), flush=True)

    for prompt in options.prompt or []:
        answer(prompt)
    if not options.prompt:
        interactive = sys.stdin.isatty()
        while True:
            if interactive:
                print("> ", end="", file=sys.stderr, flush=True)
            line = sys.stdin.readline()
            if not line:
                break
            answer(line.rstrip("\n"))
    return 0
