"""BLEU, chrF and TER: published numbers, and sacreBLEU's on random texts."""

from __future__ import annotations

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU as TheirBLEU
from sacrebleu.metrics import CHRF as TheirChrF
from sacrebleu.metrics import TER as TheirTER

from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics import translation
from lightning_nlp.metrics.translation import BLEU, TER, ChrF


def score(metric, predictions, references, batch=2):
    for start in range(0, len(predictions), batch):
        rows = range(start, min(start + batch, len(predictions)))
        metric.update([predictions[r] for r in rows], [references[r] for r in rows], [str(r) for r in rows])
    (value,) = metric.compute().values()
    return value


# sacreBLEU, test/test_bleu.py (commit 2ae1366): raw_corpus_bleu, times 100
RAW = {"tokenize": "none", "smooth": "floor", "smooth_value": 0.01, "effective_order": True}


@pytest.mark.parametrize(
    ("predictions", "references", "expected"),
    [
        (["this is a test", "another test"], ["ref1", "ref2"], 0.0),  # since 2.0: without any match nothing is smoothed
        (["this is a test"], ["this is a test"], 1.0),
        (["this is a fest"], ["this is a test"], 0.223606797749979),
        (["test"], ["a test"], 0.3678794411714425),
        (["a test"], ["a test"], 1.0),
        (["a little test"], ["a test"], 0.03218297948685433),
    ],
)
def test_published_bleu(predictions, references, expected):
    assert score(BLEU(**RAW), predictions, references) == pytest.approx(100 * expected, abs=1e-6)


def test_bleu_of_published_counts():
    """sacreBLEU, test/test_bleu.py: counts 9 7 5 3 of 10 8 6 4, both 11 words long."""
    metric = BLEU()
    metric.correct += metric.correct.new_tensor([9, 7, 5, 3])
    metric.total += metric.total.new_tensor([10, 8, 6, 4])
    metric.lengths += 11
    metric.rows += 1
    metric.update([], [], [])
    assert metric.compute()["bleu"] == pytest.approx(83.75922397, abs=1e-6)


# sacreBLEU, test/test_chrf.py (commit 0dca9d4): beta 3
@pytest.mark.parametrize(
    ("predictions", "references", "options", "expected"),
    [
        (["abcdefg"], ["hijklmnop"], {"eps_smoothing": True}, 0.0),
        ([""], ["reference"], {"eps_smoothing": True}, 0.0),
        (["aa"], ["ab"], {"eps_smoothing": True}, 8.3333),
        (["a", "b"], ["a", "c"], {"eps_smoothing": True}, 8.3333),
        (["a"], ["a"], {"eps_smoothing": True}, 16.6667),
        (["a b c"], ["abc"], {"eps_smoothing": True}, 50.0),
        (
            ["Niemand hat die Absicht, eine Mauer zu errichten"],
            ["Niemand hat die Absicht, eine Mauer zu errichten"],
            {},
            100.0,
        ),
        (
            [" Die    Beziehung zwischen  Obama und Netanjahu ist nicht gerade  freundlich. "],
            ["Das Verhältnis zwischen Obama und Netanyahu ist nicht gerade freundschaftlich."],
            {"eps_smoothing": True},
            64.1302698,
        ),
        (
            ["Die Beziehung zwischen Obama und Netanjahu ist nicht gerade freundlich."],
            ["Das Verhältnis zwischen Obama und Netanyahu ist nicht gerade freundschaftlich."],
            {"whitespace": True},
            67.3481606,
        ),
        (["a"], ["a"], {}, 100.0),
        ([""], ["c"], {}, 0.0),
        (["a", "b"], ["a", "c"], {}, 50.0),
        (["aa"], ["ab"], {}, 25.0),
    ],
)
def test_published_chrf(predictions, references, options, expected):
    assert score(ChrF(beta=3, **options), predictions, references) == pytest.approx(expected, abs=1e-4)


# sacreBLEU, test/test_ter.py (commit 27bec34)
@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ("aaaa bbbb cccc dddd", "aaaa bbbb cccc dddd", 0),
        ("dddd eeee ffff", "aaaa bbbb cccc", 1),
        ("", "a", 1),
        ("d e f g h a b c", "a b c d e f g h", 1 / 8),
    ],
)
def test_published_ter(prediction, reference, expected):
    assert score(TER(), [prediction], [reference]) == pytest.approx(100 * expected)


def test_ter_without_reference_words():
    assert score(TER(), [""], [""]) == 0
    assert score(TER(), ["a b"], [""]) == 100


letters = st.text(alphabet="aAbß, .ü'-東猫の。ー1ñ\t", max_size=14)
corpora = st.lists(st.tuples(letters, letters), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    corpora,
    st.sampled_from(["13a", "intl", "char", "zh", "none"]),
    st.sampled_from(["exp", "floor", "add-k", "none"]),
    st.booleans(),
    st.booleans(),
)
def test_random_bleu_is_sacrebleus(corpus, tokenize, smooth, effective, lower):
    predictions, references = map(list, zip(*corpus, strict=True))
    theirs = TheirBLEU(tokenize=tokenize, smooth_method=smooth, effective_order=effective, lowercase=lower, force=True)
    ours = BLEU("", tokenize, smooth, None, effective, lower)
    assert score(ours, predictions, references) == pytest.approx(
        theirs.corpus_score(predictions, [references]).score, abs=1e-9
    )
    said, signature = str(theirs.get_signature()), ours.signature
    assert signature == said


@settings(max_examples=40, deadline=None)
@given(corpora, st.sampled_from([0, 1, 2]), st.booleans(), st.booleans(), st.booleans())
def test_random_chrf_is_sacrebleus(corpus, word_order, lower, space, eps):
    predictions, references = map(list, zip(*corpus, strict=True))
    theirs = TheirChrF(word_order=word_order, lowercase=lower, whitespace=space, eps_smoothing=eps)
    ours = ChrF("", word_order=word_order, lowercase=lower, whitespace=space, eps_smoothing=eps)
    expected = theirs.corpus_score(predictions, [references]).score
    assert score(ours, predictions, references) == pytest.approx(expected, abs=1e-9)
    assert ours.signature == str(theirs.get_signature())


@settings(max_examples=25, deadline=None)
@given(corpora, st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["", "de", "zh"]))
def test_random_ter_is_sacrebleus(corpus, normalized, no_punct, case, language):
    predictions, references = map(list, zip(*corpus, strict=True))
    options = {"normalized": normalized, "no_punct": no_punct, "case_sensitive": case}
    theirs = TheirTER(asian_support=language == "zh", **options)
    ours = TER(language, **options)
    assert score(ours, predictions, references) == pytest.approx(
        theirs.corpus_score(predictions, [references]).score, abs=1e-9
    )
    assert ours.signature == str(theirs.get_signature()) + (f"|lang:{language}" if language else "")


def test_torchmetrics_mistake_is_not_ours():
    """An order without a match makes torchmetrics' BLEU 0 (its issue 3504); sacreBLEU smooths it."""
    prediction, reference = "the cat is on the mat", "there is a cat on the mat"
    assert score(BLEU(), [prediction], [reference]) == sacrebleu.corpus_bleu([prediction], [[reference]]).score > 20


@pytest.mark.parametrize(
    ("language", "prediction", "reference", "tokenizer"),
    [
        ("zh", "我喜欢喝很热的绿茶", "我喜欢喝很烫的绿茶", "zh"),
        ("zh-CN", "我喜欢喝很热的绿茶", "我喜欢喝很烫的绿茶", "zh"),
        ("th", "ฉันชอบดื่มชา", "ฉันชอบดื่มนม", "char"),
        ("de_AT", "Äpfel und Öl für Übung im Süden", "Äpfel und Öl für Übungen im Süden", "13a"),
        ("ko", "나는 뜨거운 녹차를 아주 좋아한다", "나는 뜨거운 녹차를 아주 많이 좋아한다", "13a"),
        ("", "one two three four five", "one two three four six", "13a"),
    ],
)
def test_the_language_chooses_the_tokenizer(language, prediction, reference, tokenizer):
    metric = BLEU(language)
    assert f"|tok:{tokenizer}|" in metric.signature
    assert 0 < score(metric, [prediction], [reference]) < 100


def test_chinese_and_japanese_have_words_for_ter():
    assert score(TER("zh"), ["我喜欢茶"], ["我喜欢水"]) == 25
    assert score(TER("ja"), ["猫が魚"], ["犬が魚"]) < 100


def test_japanese_without_mecab_is_compared_by_characters(monkeypatch):
    monkeypatch.setattr(translation, "find_spec", lambda name: None)
    assert translation.bleu_tokenizer("auto", "ja") == "char"
    assert "tok:char" in BLEU("ja").signature
    with pytest.raises(ConfigError, match=r"ja-mecab needs packages: pip install 'sacrebleu\[ja\]'"):
        BLEU("ja", tokenize="ja-mecab")
    monkeypatch.setattr(translation, "find_spec", lambda name: name)
    assert translation.bleu_tokenizer("auto", "ja") == "ja-mecab"


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="unknown tokenize of bleu 'int'; did you mean 'intl'"):
        BLEU(tokenize="int")
    with pytest.raises(ConfigError, match="unknown smooth of bleu 'exponential'"):
        BLEU(smooth="exponential")
    with pytest.raises(ConfigError, match="char_order"):
        ChrF(char_order=0)
