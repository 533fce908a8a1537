"""Flags of `lightning-nlp generate` change the run's settings, and nothing else."""

from __future__ import annotations

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
    assert set(OVERRIDES) < set(GenerationConfig.__dataclass_fields__)


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
