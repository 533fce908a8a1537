"""ROUGE: published numbers, rouge-score's on random texts, and scripts that it cannot read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize as their_words

from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.rouge import ROUGE, longest_common
from lightning_nlp.metrics.words import ascii_words, words


def score(metric, *pairs):
    metric.update([pair[0] for pair in pairs], [pair[1] for pair in pairs], [str(n) for n in range(len(pairs))])
    return metric.compute()


# rouge-score, rouge_scorer_test.py (google-research 066e6a1): F-measures
@pytest.mark.parametrize(
    ("prediction", "reference", "name", "expected"),
    [
        ("testing", "testing one two", "rouge1", 1 / 2),
        ("testing one", "testing one two", "rouge2", 2 / 3),
        ("testing one", "testing one two", "rougeL", 4 / 5),
        ("testing two", "testing one two", "rougeL", 4 / 5),
        ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5", "rougeLsum", 2 * 0.4 * 0.8 / 1.2),
        ("", "w1 w2 w3 w4 w5", "rougeLsum", 0),
        ("w1", "", "rougeLsum", 0),
        ("/", "w1 w2 w3 w4 w5", "rougeLsum", 0),
        ("", "testing one two", "rouge1", 0),
    ],
)
@pytest.mark.parametrize("language", ["en", ""])
def test_published(prediction, reference, name, expected, language):
    assert score(ROUGE(language), (prediction, reference))[name] == pytest.approx(expected, abs=1e-9)


texts = st.text(alphabet="abBc d_1é東\n.", max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_random_texts_are_scored_as_by_rouge_score(pairs):
    theirs = RougeScorer(list(ROUGE.names))
    each = [theirs.score(reference, prediction) for prediction, reference in pairs]
    expected = {name: sum(found[name].fmeasure for found in each) / len(pairs) for name in ROUGE.names}
    assert score(ROUGE(tokenize="rouge_score"), *pairs) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_ascii_words_are_rouge_scores(text):
    assert ascii_words(text) == their_words(text, None)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=[chr(code) for code in range(128)], max_size=30))
def test_both_tokenizers_agree_on_ascii(text):
    assert words(text) == ascii_words(text)


@settings(max_examples=60, deadline=None)
@given(*[st.lists(st.sampled_from("abc"), max_size=90)] * 2)
def test_longest_common_subsequence_is_that_of_the_table(found, wanted):
    above = [0] * (len(found) + 1)
    for word in wanted:
        row = [0]
        for place, other in enumerate(found):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
        above = row
    assert longest_common(found, wanted) == above[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我喜欢 tea。", ["我", "喜", "欢", "tea"]),
        ("コーヒーを2杯", ["コ", "ー", "ヒ", "ー", "を", "2", "杯"]),
        ("Über Äpfel, groß_klein!", ["über", "äpfel", "groß", "klein"]),
        ("U\u0308ber", ["über"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("", []),
    ],
)
def test_words_of_many_scripts(text, expected):
    assert words(text) == expected


@pytest.mark.parametrize("text", ["我喜欢喝绿茶", "猫が魚を食べた", "Übung macht den Größten"])
def test_the_same_text_scores_1_in_any_script(text):
    """rouge-score gives 0.0 for identical Chinese texts."""
    assert RougeScorer(["rouge1"]).score("我喜欢喝绿茶", "我喜欢喝绿茶")["rouge1"].fmeasure == 0
    assert score(ROUGE("de"), (text, text)) == dict.fromkeys(ROUGE.names, 1.0)


def test_umlauts_are_letters():
    """rouge-score sees ``f`` and ``r`` in both of these."""
    assert RougeScorer(["rouge1"]).score("für", "fér")["rouge1"].fmeasure == 1
    assert score(ROUGE("de"), ("für", "fér"))["rouge1"] == 0


def test_the_tokenizer_is_in_the_signature():
    assert "tok:rouge_score|" in ROUGE("en").signature and ROUGE("en").signature.endswith("|lang:en")
    assert "tok:unicode|" in ROUGE("de").signature and "tok:unicode|" in ROUGE().signature
    with pytest.raises(ConfigError, match="unknown tokenize of rouge 'unicod'; did you mean 'unicode'"):
        ROUGE(tokenize="unicod")
