"""Sampling filters against tables made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.sampling import (
    highest,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
    likeliest,
    next_token,
)

NONE = -math.inf


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([1.0, 3.0, 2.0], 1, [NONE, 3.0, NONE]),
        ([1.0, 3.0, 2.0], 2, [NONE, 3.0, 2.0]),
        ([1.0, 3.0, 2.0], 3, [1.0, 3.0, 2.0]),
        ([1.0, 3.0, 2.0], 9, [1.0, 3.0, 2.0]),
        ([-5.0, -1.0, NONE], 2, [-5.0, -1.0, NONE]),
    ],
)
def test_top_k(scores, k, expected):
    assert keep_top_k(torch.tensor([scores]), k).tolist() == [expected]


def test_top_k_of_equals_keeps_k():
    assert torch.isfinite(keep_top_k(torch.zeros(1, 8), 3)).sum() == 3


@pytest.mark.parametrize(
    ("probabilities", "p", "kept"),
    [
        ([0.5, 0.25, 0.125, 0.125], 0.4, [True, False, False, False]),
        ([0.5, 0.25, 0.125, 0.125], 0.5, [True, False, False, False]),
        ([0.5, 0.25, 0.125, 0.125], 0.51, [True, True, False, False]),
        ([0.125, 0.25, 0.125, 0.5], 0.75, [False, True, False, True]),
        ([0.125, 0.25, 0.125, 0.5], 1.0, [True, True, True, True]),
        ([0.5, 0.25, 0.125, 0.125], 1e-9, [True, False, False, False]),
    ],
)
def test_top_p(probabilities, p, kept):
    scores = torch.tensor([probabilities]).log()
    found = keep_top_p(scores, p)
    assert torch.isfinite(found)[0].tolist() == kept
    torch.testing.assert_close(found[torch.isfinite(found)], scores[torch.isfinite(found)])


@pytest.mark.parametrize(
    ("probabilities", "p", "kept"),
    [
        ([0.5, 0.25, 0.125, 0.125], 0.5, [True, True, False, False]),
        ([0.5, 0.25, 0.125, 0.125], 0.2, [True, True, True, True]),
        ([0.125, 0.25, 0.125, 0.5], 0.6, [False, False, False, True]),
        ([0.4, 0.4, 0.2, 0.0], 1.0, [True, True, False, False]),
        ([0.4, 0.4, 0.2, 0.0], 1e-9, [True, True, True, False]),
    ],
)
def test_min_p(probabilities, p, kept):
    assert torch.isfinite(keep_min_p(torch.tensor([probabilities]).log(), p))[0].tolist() == kept


@pytest.mark.parametrize(
    ("probabilities", "p", "kept"),
    [
        # Entropy 1.21 nats; information 0.69, 1.39, 2.08, 2.08: the second token is the most typical.
        ([0.5, 0.25, 0.125, 0.125], 0.2, [False, True, False, False]),
        ([0.5, 0.25, 0.125, 0.125], 0.25, [False, True, False, False]),
        ([0.5, 0.25, 0.125, 0.125], 0.26, [True, True, False, False]),
        ([0.5, 0.25, 0.125, 0.125], 1.0, [True, True, True, True]),
        ([0.9, 0.1, 0.0, 0.0], 0.5, [True, False, False, False]),
    ],
)
def test_typical(probabilities, p, kept):
    assert torch.isfinite(keep_typical(torch.tensor([probabilities]).log(), p))[0].tolist() == kept


def draw(count: int, **given: object) -> torch.Tensor:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(count, 4)
    tokens = next_token(logits, GenerationConfig(**given), torch.Generator().manual_seed(0))
    return torch.bincount(tokens, minlength=4) / count


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, [1, 0, 0, 0]),
        ({"temperature": 1.0}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.5}, [0.6849, 0.2466, 0.0616, 0.0068]),  # squares, made to sum to one
        ({"temperature": 1.0, "top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"temperature": 1.0, "top_p": 0.9}, [0.5263, 0.3158, 0.1579, 0]),
        ({"temperature": 1.0, "top_k": 3, "top_p": 0.5}, [1, 0, 0, 0]),
        ({"temperature": 1.0, "min_p": 0.5}, [0.625, 0.375, 0, 0]),
        ({"temperature": 1.0, "typical_p": 0.25}, [0, 1, 0, 0]),
        ({"temperature": 1e-40}, [1, 0, 0, 0]),
    ],
)
def test_tokens_come_as_often_as_they_should(given, expected):
    assert draw(20_000, **given).tolist() == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [3, 255, 1023, 1024, 1025, 5000, 5120, 9001])
def test_the_highest_scores_of_any_vocabulary(size, dtype):
    generator = torch.Generator().manual_seed(size)
    scores = torch.randn(40, size, generator=generator).to(dtype)  # in bfloat16 there are many equals
    scores[3:6, -1], scores[6, 0], scores[7] = 9.0, 9.0, NONE
    assert torch.equal(likeliest(scores), scores.max(-1).indices)
    for k in (1, 3):
        values, places = highest(scores, k)
        assert torch.equal(values, scores.topk(k).values)
        assert torch.equal(scores.gather(1, places), values)
        assert all(len(set(row)) == k for row in places.tolist())
