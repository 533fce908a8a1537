"""The Unigram trainer beside sums over all segmentations, and beside the trainer of the ``tokenizers`` library."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from lightning_nlp.data.tokenizers.spelling import byte_letters
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.data.tokenizers.unigram import NEVER, best, digamma, expected_counts, grouped, learn_pieces, losses

PIECES = {"a": 0.2, "b": 0.15, "c": 0.05, "ab": 0.25, "bc": 0.1, "abc": 0.15, "ca": 0.06, "cab": 0.04}
WORDS = {"abcab": 3, "cabca": 2, "abc": 5, "b": 1, "ccc": 2}


def segmentations(word: str) -> list[tuple[str, ...]]:
    """Every way to cut a word into pieces."""
    found = []
    for cuts in itertools.product((False, True), repeat=len(word) - 1):
        ends = [place + 1 for place, cut in enumerate(cuts) if cut] + [len(word)]
        parts = tuple(word[start:stop] for start, stop in itertools.pairwise([0, *ends]))
        if all(part in PIECES for part in parts):
            found.append(parts)
    return found


def probability(parts: tuple[str, ...]) -> float:
    return math.prod(PIECES[part] for part in parts)


@pytest.fixture
def model():
    names = list(PIECES)
    return names, np.log(np.array(list(PIECES.values()))), grouped(WORDS, names)


def test_expected_counts_are_those_of_all_segmentations(model):
    names, scores, groups = model
    expected = dict.fromkeys(names, 0.0)
    for word, count in WORDS.items():
        total = sum(map(probability, segmentations(word)))
        for parts in segmentations(word):
            for part in parts:
                expected[part] += count * probability(parts) / total
    found = sum(expected_counts(group, scores) for group in groups)
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-10)


@pytest.mark.parametrize("whole", [True, False])
def test_the_best_segmentation_is_the_best_of_all(model, whole):
    names, scores, _ = model
    for word in WORDS:
        options = [parts for parts in segmentations(word) if whole or parts != (word,)]
        ((log, pieces),) = [best(group, scores, whole=whole) for group in grouped({word: 1}, names)]
        if not options:
            assert log[0] <= NEVER
            continue
        wanted = max(options, key=probability)
        assert log[0] == pytest.approx(math.log(probability(wanted)))
        assert [names[number] for number in pieces[0][::-1] if number < len(names)] == list(wanted)


def test_the_loss_of_a_piece_by_hand(model):
    """abcab -> abc ab, cabca -> cab ca or ca bc a ..., abc -> abc: uses of abc become ab c, of ab become a b."""
    names, scores, groups = model
    used = dict.fromkeys(names, 0)
    for word, count in WORDS.items():
        for part in max(segmentations(word), key=probability):
            used[part] += count
    total = sum(used.values())
    found = losses(groups, grouped(dict.fromkeys(names, 1), names), scores)
    for name, number in {"abc": 2, "ab": 2}.items():
        second = max((parts for parts in segmentations(name) if parts != (name,)), key=probability)
        assert len(second) == number
        after = total + used[name] * (len(second) - 1)
        split = sum(math.log((used[part] + used[name]) / after) for part in second)
        expected = used[name] * (math.log(used[name] / total) - split)
        assert found[names.index(name)] == pytest.approx(expected) and expected > 0
    unused = [name for name in names if not used[name]]
    assert unused and all(found[names.index(name)] == -np.inf for name in unused)


@pytest.mark.parametrize(
    ("x", "value"),  # Abramowitz and Stegun, table 6.1, and -gamma - 2 ln 2
    [(1.0, -0.5772156649), (2.0, 0.4227843351), (0.5, -1.9635100260), (1.5, 0.0364899740), (10.0, 2.2517525890)],
)
def test_digamma(x, value):
    assert float(digamma(np.array(x))) == pytest.approx(value, abs=1e-9)


def test_a_language_of_three_words_is_found():
    """Words without spaces between them: the pieces are the words, and probabilities those of the language."""
    generator = np.random.default_rng(0)
    names, rates = ["kata", "lo", "mipu"], [0.5, 0.3, 0.2]
    texts = ["".join(generator.choice(names, 1 + number % 3, p=rates)) for number in range(900)]
    letters = sorted(set("".join(names)))
    words = {text: texts.count(text) for text in sorted(set(texts))}
    found = dict(learn_pieces(words, letters, len(letters) + 3))
    assert set(names) <= found.keys() and len(found) == len(letters) + 3
    for name, rate in zip(names, rates, strict=True):
        assert math.exp(found[name]) == pytest.approx(rate, abs=0.05)


def test_letters_stay_and_sizes_are_met():
    words = {"banana": 4, "bandana": 2, "an": 3}
    for size in (6, 8, 10):
        found = learn_pieces(words, list("abdnxy"), size)
        assert set("abdnxy") <= {name for name, _ in found} and len(found) == size
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)
    assert len(learn_pieces(words, list("abdnxy"), 1000)) < 40  # no more than there is
    assert {name for name, _ in learn_pieces(words, list("abdnxy"), 1000, min_frequency=100)} == set("abdnxy")


TEXTS = [
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness,",
    "it was the epoch of belief, it was the epoch of incredulity, it was the season of light, it was the season of",
    "darkness, it was the spring of hope, it was the winter of despair, we had everything before us, we had nothing",
    "before us, we were all going direct to heaven, we were all going direct the other way",
] * 3


@pytest.mark.parametrize("size", [270, 300])
def test_texts_are_as_likely_as_with_the_trainer_of_the_library(size):
    def likelihood(tokenizer: Tokenizer) -> float:
        scores = json.loads(tokenizer.backend.to_str())["model"]["vocab"]
        return sum(scores[id][1] for ids in tokenizer.encode_batch(TEXTS) for id in ids.tolist())

    config = TokenizerConfig(kind="unigram", vocab_size=size, special_tokens=False)
    ours = Tokenizer.train(TEXTS, config)
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.UnigramTrainer(
        vocab_size=size, initial_alphabet=byte_letters(), special_tokens=[], show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    assert ours.vocab_size == size and likelihood(ours) > likelihood(Tokenizer(backend))
