"""Search and scoring against published tables: prefix to probabilities, and the texts with scores that must come out.

The tables, the texts and their scores are facts from fairseq's tests (``sequence_generator_setup`` in ``tests/utils.py``,
``tests/test_sequence_generator.py`` and ``tests/test_sequence_scorer.py``). transformers 5.23, fed with the same tables,
agrees.
"""

from __future__ import annotations

import math

import pytest
import torch

from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import hypotheses
from lightning_nlp.decoding.score import score
from tests.unit.decoding.table_model import END, NAMES, TableModel

S1 = {
    "": {"a": 0.9, "b": 0.1},
    "a": {"$": 1.0},
    "b": {"a": 0.9, "b": 0.1},
    "ba": {"a": 0.1, "b": 0.9},
    "bb": {"$": 0.6, "a": 0.2, "b": 0.2},
    "bab": {"$": 1.0},
    "baa": {"$": 1.0},
}
S2 = {
    "": {"a": 0.7, "b": 0.3},
    "a": {"$": 0.25, "a": 0.35, "b": 0.4},
    "b": {"a": 0.1, "b": 0.9},
    "ab": {"$": 0.6, "a": 0.4},
    "bb": {"$": 0.01, "b": 0.99},
    "bbb": {"$": 0.1, "a": 0.5, "b": 0.4},
    "aba": {"$": 1.0},
}

MODEL = TableModel({3: S1, 4: S2})


def identity(hidden: torch.Tensor) -> torch.Tensor:
    return hidden


def search(prompts: list[list[int]], model: TableModel = MODEL, **given: object) -> list[list[tuple[str, float]]]:
    settings = {"beams": 2, "n_best": 2, "max_new_tokens": 20, **given}
    found = hypotheses(model, identity, prompts, GenerationConfig(**settings), eos_id=END, pad_id=0)
    return [
        [("".join("$ab"[t] for t in best.tokens) + "$" * best.finished, best.score) for best in row] for row in found
    ]


@pytest.mark.parametrize(
    ("penalty", "first", "second"),
    [
        (0.0, [("a$", math.log(0.9)), ("bab$", -2.5133)], [("ab$", -1.7838), ("aba$", -2.1893)]),
        (0.6, [("a$", -0.0695), ("bab$", -1.0940)], [("ab$", -0.9227), ("aba$", -0.9529)]),
        (1.0, [("a$", -0.0527), ("bab$", -0.6283)], [("aba$", -0.5473), ("ab$", -0.5946)]),
        (5.0, [("bab$", -0.00245), ("a$", -0.00329)], [("aba$", -0.00214), ("ab$", -0.00734)]),
    ],
)
@pytest.mark.parametrize("stop", ["finished", "heuristic", "never"])
def test_published_tables(penalty, first, second, stop):
    found = search([[3], [4]], length_penalty=penalty, stop=stop)
    assert [text for text, _ in found[0]] == [text for text, _ in first]
    assert [value for _, value in found[0]] == pytest.approx([value for _, value in first], abs=6e-5)
    if penalty == 5 and stop != "finished":  # the search goes on past the table, and finds long texts worth it
        assert min(value for _, value in found[1]) > second[0][1]
        return
    assert [text for text, _ in found[1]] == [text for text, _ in second]
    assert [value for _, value in found[1]] == pytest.approx([value for _, value in second], abs=6e-5)


def test_published_tables_with_a_longest_text_of_two():
    found = search([[3], [4]], max_new_tokens=3, force_eos=True)
    assert [[text for text, _ in row] for row in found] == [["a$", "bb$"], ["ab$", "bb$"]]
    expected = [math.log(0.9) / 2, math.log(0.006) / 3, math.log(0.168) / 3, math.log(0.0027) / 3]
    assert [value for row in found for _, value in row] == pytest.approx(expected)


def spelled(text: str) -> list[int]:
    return [NAMES[letter] for letter in text]


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 5.0])
@pytest.mark.parametrize("norm", ["none", "average", "gnmt"])
def test_a_found_text_scores_what_forcing_it_scores(norm, penalty):
    """Length norms by hand: none is a penalty of 0; average divides by L^penalty; GNMT by ((5 + L) / 6)^penalty."""
    found = search([[3], [4]], length_penalty=penalty, length_norm=norm)
    for prompt, row in zip([[3], [4]], found, strict=True):
        forced = score(MODEL, identity, [prompt] * 2, [spelled(text) for text, _ in row], pad_id=0)
        units = [{"none": 1, "average": len(text), "gnmt": (5 + len(text)) / 6}[norm] for text, _ in row]
        expected = [sum(values) / unit**penalty for values, unit in zip(forced, units, strict=True)]
        assert [value for _, value in row] == pytest.approx(expected, abs=1e-6)
        assert expected == sorted(expected, reverse=True)
    if norm == "none":
        assert found == search([[3], [4]], length_penalty=0.0)


FORCED = TableModel(
    {
        3: {"": {"a": 0.6, "b": 0.4}, "a": {"$": 0.1, "a": 0.2, "b": 0.7}, "ab": {"$": 0.1, "a": 0.5, "b": 0.4}, "aba": {"$": 0.9, "a": 0.05, "b": 0.05}},
        4: {"": {"a": 0.4, "b": 0.6}, "b": {"a": 0.8, "b": 0.2}, "ba": {"$": 0.15, "a": 0.15, "b": 0.7}},
        5: {"": {"a": 0.7, "b": 0.3}, "b": {"$": 0.7, "a": 0.1, "b": 0.2}},
    }
)  # fmt: skip


def test_published_scores_of_given_texts():
    """One published row sums to 0.9; the rest is given to the end token here, so that rows are probabilities."""
    texts = ["aba$", "ba$", "b$"]
    rows = [[0.6, 0.7, 0.5, 0.9], [0.6, 0.8, 0.15], [0.3, 0.7]]
    together = score(FORCED, identity, [[3], [4], [5]], [spelled(text) for text in texts], pad_id=0)
    for prompt, text, found, expected in zip((3, 4, 5), texts, together, rows, strict=True):
        assert found == pytest.approx([math.log(value) for value in expected], abs=1e-6)
        assert score(FORCED, identity, [[prompt]], [spelled(text)], pad_id=0) == [found]
