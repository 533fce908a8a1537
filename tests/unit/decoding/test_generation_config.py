"""Settings of generation that cannot be, or contradict each other, are refused in one line."""

from __future__ import annotations

import math

import pytest

from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, not 0"),
        ({"min_new_tokens": -1}, "min_new_tokens must be at least 0"),
        ({"min_new_tokens": 65}, "min_new_tokens 65 is more than max_new_tokens 64"),
        ({"temperature": -0.1}, "temperature must be 0 or more"),
        ({"temperature": math.nan}, "temperature must be 0 or more"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\]"),
        ({"top_p": 1.1}, "top_p must be in"),
        ({"min_p": -1.0}, "min_p must be in"),
        ({"typical_p": 2.0}, "typical_p must be in"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be above 0"),
        ({"no_repeat_ngram_size": -2}, "no_repeat_ngram_size must be at least 0"),
        ({"no_repeat_ngram_scope": "promt"}, "no_repeat_ngram_scope 'promt'; did you mean 'prompt'"),
        ({"bad_words": [[3], []]}, r"bad_words holds \[\]"),
        ({"bad_words": [[-3]]}, r"bad_words holds \[-3\]"),
        ({"beams": 0}, "beams must be at least 1"),
        ({"beams": 4, "temperature": 0.7}, "beams 4 and temperature 0.7 contradict each other"),
        ({"beams": 2, "n_best": 3}, "n_best 3 is more than beams 2"),
        ({"n_best": 3}, "n_best 3 is more than beams 1"),
        ({"length_norm": "mean"}, r"length_norm 'mean' \(known: none, average, gnmt\)"),
        ({"length_penalty": math.inf}, "length_penalty must be a number"),
        ({"stop": "nevr"}, "stop 'nevr'; did you mean 'never'"),
    ],
)
def test_impossible_settings_are_refused(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        GenerationConfig(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("norm", "penalty", "expected"),
    [("none", 1.0, -6.0), ("average", 1.0, -2.0), ("average", 0.0, -6.0), ("average", 2.0, -6 / 9), ("average", -1.0, -18.0),
     ("gnmt", 1.0, -4.5), ("gnmt", 0.6, -6 / (8 / 6) ** 0.6), ("gnmt", 0.0, -6.0)],
)  # fmt: skip
def test_length_norms(norm, penalty, expected):
    """GNMT: ((5 + L) / 6)^penalty (Wu et al. 2016, equation 14)."""
    assert GenerationConfig(length_norm=norm, length_penalty=penalty).normalised(-6.0, 3) == pytest.approx(expected)
