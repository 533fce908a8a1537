"""Flags of `lightning-nlp generate` change the run's settings, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lightning_nlp.cli.decoding_flags import OVERRIDES, changed, spellings
from lightning_nlp.cli.generate import arguments
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.errors import ConfigError

SAMPLING = GenerationConfig(max_new_tokens=9, temperature=0.8, top_k=50, top_p=0.9, repetition_penalty=1.2, seed=4)
SEARCHING = GenerationConfig(max_new_tokens=9, beams=4, length_penalty=0.6)


@pytest.mark.parametrize(
    ("before", "flags", "expected"),
    [
        (SAMPLING, "", {"seed": None}),
        (SAMPLING, "--seed 3 --top_p 0.5 --min_p 0.1 --typical_p 0.4", {"seed": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.4}),
        (SAMPLING, "--temperature 0", {"seed": None, "temperature": 0.0, "top_k": None, "top_p": None}),
        (SAMPLING, "--temperature 0 --top_k 3", {"seed": None, "temperature": 0.0, "top_k": 3, "top_p": None}),
        (SAMPLING, "--beams 3 --stop never --length_norm gnmt --length_penalty 2",
         {"seed": None, "temperature": 0.0, "top_k": None, "top_p": None, "beams": 3, "stop": "never", "length_norm": "gnmt", "length_penalty": 2.0}),
        (SEARCHING, "--temperature 0.7 --max_new_tokens 5", {"temperature": 0.7, "beams": 1, "max_new_tokens": 5}),
        (replace(SEARCHING, n_best=4), "--length_penalty 1", {"length_penalty": 1.0, "n_best": 4}),
        (replace(SEARCHING, n_best=4), "--beams 2", {"beams": 2, "n_best": 1}),
        (replace(SEARCHING, n_best=4), "--beams 1", {"beams": 1, "n_best": 1}),
        (replace(SAMPLING, n_best=4), "--temperature 0", {"temperature": 0.0, "top_k": None, "top_p": None, "n_best": 1, "seed": None}),
        (SAMPLING, "--n_best 3 --force_eos --no_repeat_ngram_scope new", {"n_best": 3, "seed": None, "force_eos": True, "no_repeat_ngram_scope": "new"}),
        (SEARCHING, "--no_repeat_ngram_size 3 --min_new_tokens 2", {"no_repeat_ngram_size": 3, "min_new_tokens": 2}),
    ],
)  # fmt: skip
def test_flags(before, flags, expected):
    options = arguments().parse_args(["--run", "x", *flags.split()])
    assert vars(changed(before, options, None)) == {**vars(before), **expected}
    assert changed(before, options, [[3]]).bad_words == [[3]]


def test_contradictions_on_the_command_line():
    options = arguments().parse_args(["--run", "x", "--beams", "2", "--temperature", "1"])
    with pytest.raises(ConfigError, match="contradict each other"):
        changed(SAMPLING, options, None)


def test_flags_are_settings():
    """Each setting has a flag, a seed beside them, and banned texts instead of tokens; a page says what they do."""
    fields = set(GenerationConfig.__dataclass_fields__)
    assert set(OVERRIDES) == fields - {"seed", "bad_words"}
    page = (Path(__file__).parents[3] / "docs" / "decoding.md").read_text()
    assert [name for name in fields if f"`{name}`" not in page] == []


def test_greedily_otherwise_the_same():
    plain = GenerationConfig(max_new_tokens=9, repetition_penalty=1.2, bad_words=[[3]])
    sampling = {"temperature": 0.7, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.3, "n_best": 4}
    assert replace(plain, **sampling).greedy() == replace(plain, beams=4, n_best=4).greedy() == plain


def test_words_are_banned_in_both_spellings():
    class Letters:
        def encode(self, text: str) -> list[int]:
            return [ord(letter) for letter in text]

    class Trimmed(Letters):
        def encode(self, text: str) -> list[int]:
            return super().encode(text.strip())

    assert spellings(Letters(), "no") == [[110, 111], [32, 110, 111]]
    assert spellings(Trimmed(), "no") == [[110, 111]]
    with pytest.raises(ConfigError, match="--bad_word is empty"):
        spellings(Letters(), "")
