"""Penalties and bans against tables made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.processors import Processors, Text, filled
from lightning_nlp.errors import ConfigError

NONE = -math.inf
SCORES = [2.0, -1.0, 0.5, -3.0, 1.0]


def process(
    prompts: list[list[int]], new: list[list[int]], *, eos_id: int | None = 0, room: int = 99, **given: object
) -> list[list[float]]:
    """Scores of the next token for rows that all start from SCORES."""
    calls = {name: given.pop(name) for name in ("source", "prefixes", "allowed") if name in given}
    if "source" in calls:
        calls["source"] = filled(calls["source"], torch.device("cpu"))
    before = filled(prompts, torch.device("cpu"), left=True)
    tokens = torch.cat((before, torch.tensor(new).view(len(new), -1)), dim=1).long()
    text = Text(tokens, before.shape[1], torch.arange(len(prompts)), [True] * len(prompts))
    processors = Processors(GenerationConfig(**given), eos_id, torch.full((len(prompts),), room), **calls)
    scores = torch.tensor([SCORES] * len(prompts))
    found = processors(scores, text)
    assert scores.tolist() == [SCORES] * len(prompts)  # the model's own scores are needed afterwards
    return found.tolist()


def without(*tokens: int) -> list[float]:
    return [NONE if token in tokens else score for token, score in enumerate(SCORES)]


@pytest.mark.parametrize(
    ("prompt", "new", "given", "expected"),
    [
        ([3], [], {}, SCORES),
        ([3], [2, 2], {"repetition_penalty": 2.0}, [2.0, -1.0, 0.25, -6.0, 1.0]),  # once, however often seen
        ([1], [0], {"repetition_penalty": 0.5}, [4.0, -0.5, 0.5, -3.0, 1.0]),
        ([1], [2, 3, 1], {"no_repeat_ngram_size": 2}, without(2)),
        ([1], [2, 3, 1], {"no_repeat_ngram_size": 2, "no_repeat_ngram_scope": "new"}, SCORES),
        ([1], [2, 3], {"no_repeat_ngram_size": 1}, without(1, 2, 3)),
        ([1], [2, 3], {"no_repeat_ngram_size": 1, "no_repeat_ngram_scope": "new"}, without(2, 3)),
        ([1, 2], [3, 1, 2], {"no_repeat_ngram_size": 3}, without(3)),
        ([1, 2], [3, 2, 2], {"no_repeat_ngram_size": 3}, SCORES),  # neither 4-grams' parts nor shorter ones
        ([1], [], {"no_repeat_ngram_size": 4}, SCORES),
        ([4, 1, 4, 2, 4], [], {"no_repeat_ngram_size": 2}, without(1, 2)),
        ([3], [], {"bad_words": [[1], [4]]}, without(1, 4)),
        ([3], [2, 4], {"bad_words": [[4, 1], [2, 4, 3], [2, 2], [3, 3, 2, 4, 0], [1, 4, 2]]}, without(1, 3)),
        ([2], [4], {"bad_words": [[2, 4, 3]]}, without(3)),  # begun in the prompt
        ([3], [1], {"min_new_tokens": 2}, without(0)),
        ([3], [1, 2], {"min_new_tokens": 2}, SCORES),
        ([3], [1, 2], {"force_eos": True, "room": 4}, SCORES),
        ([3], [1, 2], {"force_eos": True, "room": 3}, without(1, 2, 3, 4)),
        ([3], [1], {"allowed": lambda row, new: [new[-1] + 1, 4]}, without(0, 1, 3)),
        ([3], [1], {"allowed": lambda row, new: []}, [NONE] * 5),
        ([3], [1], {"prefixes": [[1, 2]]}, without(0, 1, 3, 4)),
        ([3], [1], {"prefixes": [[1]]}, SCORES),
        ([3], [1], {"prefixes": [[1, 2]], "bad_words": [[2]], "min_new_tokens": 5}, without(0, 1, 3, 4)),
        ([3], [1], {"bad_words": [[0], [1], [2], [3], [4]]}, [NONE] * 5),
        ([1], [2], {"source": [[4, 2, 3]], "no_repeat_ngram_size": 2, "no_repeat_ngram_scope": "source"}, without(3)),
        ([1], [2], {"source": [[4, 2, 3]], "no_repeat_ngram_size": 2}, SCORES),
    ],
)  # fmt: skip
def test_one_row(prompt, new, given, expected):
    assert process([prompt], [new], **given) == [expected]


def test_rows_do_not_see_each_other_or_padding():
    found = process(
        [[4, 2, 1], [3], [2, 2]], [[4], [3], [2]],
        no_repeat_ngram_size=2, no_repeat_ngram_scope="source", source=[[4, 1], [3], [3, 3, 2, 0]],
        prefixes=[[], [], [2, 4]], allowed=lambda row, new: [row, 1, 2, 3, 4],
    )  # fmt: skip
    assert found == [without(1, 2), without(0, 3), without(0, 1, 2, 3)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"force_eos": True, "eos_id": None}, "force_eos needs an end token"),
        ({"no_repeat_ngram_size": 2, "no_repeat_ngram_scope": "source"}, "no source tokens were given"),
        ({"bad_words": [[1, 5]]}, "token 5 of bad words or prefixes is not in the vocabulary of 5"),
        ({"prefixes": [[7]]}, "token 7 of bad words or prefixes is not in the vocabulary of 5"),
        ({"allowed": lambda row, new: [2, 9]}, "allowed_tokens gave a token that is not in the vocabulary of 5"),
    ],
)
def test_impossible_settings_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        process([[1]], [[2]], **given)
