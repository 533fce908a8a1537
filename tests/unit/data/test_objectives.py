"""Document to example: ends, shifts, cuts."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_nlp.data.objectives import causal_lm, classification, with_ends

IDS = np.array([5, 6, 7], dtype=np.int32)


@pytest.mark.parametrize(
    ("ids", "bos", "eos", "expected"),
    [
        (IDS, None, None, [5, 6, 7]),
        (IDS, 1, None, [1, 5, 6, 7]),
        (IDS, None, 2, [5, 6, 7, 2]),
        (IDS, 1, 2, [1, 5, 6, 7, 2]),
        (IDS, 0, 0, [0, 5, 6, 7, 0]),  # id 0 is an id, not a "none"
        ([], 1, 2, [1, 2]),
        ([], None, None, []),
    ],
)
def test_with_ends(ids, bos, eos, expected):
    found = with_ends(ids, bos, eos)
    assert found.tolist() == expected
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    ("ids", "bos", "eos", "tokens", "labels"),
    [
        (IDS, 1, 2, [1, 5, 6, 7], [5, 6, 7, 2]),
        (IDS, None, 2, [5, 6, 7], [6, 7, 2]),
        (IDS, 1, None, [1, 5, 6], [5, 6, 7]),
        (IDS, None, None, [5, 6], [6, 7]),
        ([5], 1, None, [1], [5]),
        ([5], None, 0, [5], [0]),
    ],
)
def test_causal_lm_predicts_the_next_token(ids, bos, eos, tokens, labels):
    example = causal_lm(ids, "doc", 9, bos, eos)
    assert example.tokens.tolist() == tokens
    assert example.labels.tolist() == labels
    assert example.tokens.dtype == example.labels.dtype == np.int32
    assert (example.id, example.bytes, example.full_length, example.truncated) == ("doc", 9, len(tokens), False)


@pytest.mark.parametrize(("ids", "bos", "eos"), [([], 1, 2), ([], None, None), ([5], None, None)])
def test_causal_lm_without_anything_to_predict(ids, bos, eos):
    assert causal_lm(ids, "doc", 0, bos, eos) is None


@pytest.mark.parametrize(
    ("max_length", "bos", "eos", "tokens", "truncated"),
    [
        (5, 1, 2, [1, 5, 6, 7, 2], False),
        (4, 1, 2, [1, 5, 6, 2], True),
        (2, 1, 2, [1, 2], True),
        (4, 1, None, [1, 5, 6, 7], False),
        (3, 1, None, [1, 5, 6], True),
        (3, None, 2, [5, 6, 2], True),
        (2, None, None, [5, 6], True),
        (99, None, None, [5, 6, 7], False),
        (3, 1, 0, [1, 5, 0], True),
    ],
)
def test_classification_keeps_beginning_and_end_token(max_length, bos, eos, tokens, truncated):
    example = classification(IDS, 3, "doc", max_length, bos, eos)
    assert example.tokens.tolist() == tokens
    assert example.tokens.dtype == np.int32
    assert (example.labels, example.id, example.truncated) == (3, "doc", truncated)
    assert example.full_length == 3 + (bos is not None) + (eos is not None)
    assert IDS.tolist() == [5, 6, 7]  # never written to


def test_classification_of_an_empty_text():
    assert classification([], 0, "doc", 8, 1, 2) is None
