"""Sentinels and further special tokens stand at the end of the vocabulary, and change nothing else."""

from __future__ import annotations

import pytest

from lightning_nlp.data.tokenizers.added_tokens import sentinel_ids
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError

TEXTS = ["the cat sat on the mat.\n", "naïve café, the coöperation"]


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
@pytest.mark.parametrize("special", [True, False])
def test_sentinels_are_counted_from_the_end(kind, special, tmp_path):
    settings = {"kind": kind, "special_tokens": special}
    having = Tokenizer.train(
        TEXTS, TokenizerConfig(vocab_size=310, sentinels=5, extra_tokens=("<a>", "<b>"), **settings)
    )
    without = Tokenizer.train(TEXTS, TokenizerConfig(vocab_size=303, **settings))
    last = having.vocab_size - 1
    assert sentinel_ids(having.backend).tolist() == [last - number for number in range(5)]
    assert [having.backend.token_to_id(name) for name in ("<a>", "<b>")] == [last - 6, last - 5]
    assert having.vocab_size == without.vocab_size + 7 and (kind != "bpe" or having.vocab_size <= 310)
    assert having.encode("the cat café") == without.encode("the cat café")
    assert set(range(last - 6, last + 1)) <= set(having.special_ids)
    assert having.decode([*having.encode("the "), last, *having.encode("cat")]) == "the cat"
    having.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").hash == having.hash
    if kind != "char":  # written in a text, they are text
        assert having.decode(having.encode("a <extra_id_0> <a>")) == "a <extra_id_0> <a>"
        assert max(having.encode("a <extra_id_0> <a>")) < last - 6
    assert not len(sentinel_ids(without.backend))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": 300, "sentinels": 41}, "must be at least 301 for bpe"),
        ({"vocab_size": 260, "extra_tokens": ("<a>",)}, "must be at least 261 for bpe"),
        ({"sentinels": -1}, "data.tokenizer.sentinels must be at least 0, not -1"),
        ({"extra_tokens": ("<a>", "<a>")}, "names that are not there yet"),
        ({"extra_tokens": ("<eos>",)}, "names that are not there yet"),
        ({"extra_tokens": ("",)}, "names that are not there yet"),
        ({"extra_tokens": ("<extra_id_3>",)}, "no sentinels"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ConfigError, match=message):
        TokenizerConfig(**settings)
