"""Tokenizers give text back, are repeatable, and are told apart by their hash."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nlp.data.tokenizers.tokenizer import SPECIAL, Tokenizer, TokenizerConfig, byte_letters
from lightning_nlp.errors import ConfigError, DataError

TEXTS = ["the cat sat on the mat.\n", "naïve café, the coöperation", "def f(x):\n\treturn x + 1\r\n", "日本語 🙂"] * 5
HARD = [
    "",
    " ",
    "plain",
    " leading and trailing ",
    "two  spaces\tand\ttabs",
    "\n\nlines\r\nand\rmore\n",
    "zażółć gęślą jaźń",
    "日本語のテキスト",
    "مرحبا بالعالم",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301 is not \u00e9",
    "\u00a0\u2028\u2029\ufeff\u200b",
    "\x00\x01\x7f\x80\xff",
    "\U0010ffff",
]
MARKS = ["<pad>", "a <eos> b", "<bos><unk>", "if a <unk> b"]


def trained(kind: str, texts: list[str] = TEXTS, **settings) -> Tokenizer:
    return Tokenizer.train(texts, TokenizerConfig(kind=kind, **{"vocab_size": 300, **settings}))


BYTES = {
    (kind, special): trained(kind, special_tokens=special) for kind in ("byte", "bpe") for special in (True, False)
}


@pytest.fixture(params=BYTES, ids=lambda key: f"{key[0]}-{'special' if key[1] else 'bare'}")
def byte_level(request):
    return BYTES[request.param]


@pytest.mark.parametrize("text", HARD)
def test_any_text_comes_back(byte_level, text):
    assert byte_level.decode(byte_level.encode(text)) == text


@pytest.mark.parametrize("text", MARKS)
def test_text_that_looks_like_a_special_token_comes_back(byte_level, text):
    ids = byte_level.encode(text)
    specials = {byte_level.pad_id, byte_level.bos_id, byte_level.eos_id, byte_level.unk_id} - {None}
    assert not specials & set(ids)
    assert byte_level.decode(ids) == text


@pytest.mark.parametrize("key", BYTES)
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_random_text_comes_back(key, text):
    assert BYTES[key].decode(BYTES[key].encode(text)) == text


@pytest.mark.parametrize("text", HARD)
def test_byte_ids_are_byte_values(text):
    assert BYTES["byte", False].encode(text) == list(text.encode())
    assert BYTES["byte", True].encode(text) == [4 + byte for byte in text.encode()]


def test_byte_vocabulary():
    assert BYTES["byte", False].vocab_size == 256
    assert BYTES["byte", True].vocab_size == 260
    assert len(set(byte_letters())) == 256


@pytest.mark.parametrize("special", [True, False])
def test_bpe_has_the_size_asked_for(special):
    tokenizer = BYTES["bpe", special]
    assert tokenizer.vocab_size == 300
    assert len(tokenizer.encode("the cat sat on the mat.")) < 20


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
@pytest.mark.parametrize("special", [True, False])
def test_special_ids(kind, special):
    tokenizer = trained(kind, special_tokens=special)
    found = [tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id]
    assert found == ([0, 1, 2, 3] if special else [None] * 4)
    if special:
        assert tokenizer.decode([1, *tokenizer.encode("the"), 2, 0, 0]) == "the"


def test_char_vocabulary_is_exactly_the_characters():
    alphabet = string.ascii_letters + "\n !$&',-.3:;?"  # the 65 of tiny Shakespeare
    tokenizer = trained("char", [alphabet[::-1], "again"], special_tokens=False)
    assert tokenizer.vocab_size == len(alphabet) == 65
    assert tokenizer.encode("".join(sorted(alphabet))) == list(range(65))
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n\n"
    assert len(tokenizer.encode(text)) == len(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("text", ["naïve", "日本語 🙂", "the\tcat\r\n\n", "  a  "])
def test_char_text_comes_back(special, text):
    tokenizer = trained("char", [text], special_tokens=special)
    ids = tokenizer.encode(text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.vocab_size == len(set(text)) + 4 * special


def test_char_unseen_character_is_unknown_or_refused():
    tokenizer = trained("char", ["abc"])
    assert tokenizer.encode("axc") == [4, tokenizer.unk_id, 6]
    with pytest.raises(DataError, match="cannot be tokenised"):
        trained("char", ["abc"], special_tokens=False).encode("axc")


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
@pytest.mark.parametrize("special", [True, False])
def test_training_and_hash_are_repeatable(kind, special):
    one, two = (trained(kind, special_tokens=special) for _ in range(2))
    assert one.hash == two.hash
    assert one.backend.to_str() == two.backend.to_str()
    assert len(one.hash) == 64


def test_hash_differs_by_what_is_learnt():
    others = [
        trained("bpe"),
        trained("bpe", vocab_size=299),
        trained("bpe", ["quite other words, quite other merges, other words"] * 3),
        trained("bpe", special_tokens=False),
        trained("byte"),
        trained("byte", special_tokens=False),
        trained("char"),
        trained("char", ["abc"]),
    ]
    assert len({tokenizer.hash for tokenizer in others}) == len(others)


@pytest.mark.parametrize("texts", [["something else"], [""], []])
def test_byte_needs_no_text(texts):
    assert trained("byte").hash == trained("byte", texts).hash


@pytest.mark.parametrize("kind", ["bpe", "byte", "char"])
@pytest.mark.parametrize("special", [True, False])
def test_saved_and_loaded_is_the_same(kind, special, tmp_path):
    tokenizer = trained(kind, special_tokens=special)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.hash == tokenizer.hash
    assert loaded.vocab_size == tokenizer.vocab_size
    assert (loaded.pad_id, loaded.bos_id, loaded.eos_id) == (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id)
    for text in TEXTS[:4]:
        assert loaded.encode(text) == tokenizer.encode(text)
        assert loaded.decode(loaded.encode(text)) == text


def test_padding_and_truncation_of_a_foreign_file_are_switched_off(tmp_path):
    backend = trained("byte").backend
    backend.enable_padding(length=64)
    backend.enable_truncation(3)
    backend.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.decode(loaded.encode("longer than three")) == "longer than three"
    assert loaded.hash == trained("byte").hash


def test_batch_equals_one_by_one(byte_level):
    batch = byte_level.encode_batch(HARD)
    assert [ids.tolist() for ids in batch] == [byte_level.encode(text) for text in HARD]
    assert {ids.dtype for ids in batch} == {np.dtype(np.int32)}


@pytest.mark.parametrize("kind", ["bpe", "char"])
@pytest.mark.parametrize("texts", [[], ["", ""]])
def test_no_text_is_refused(kind, texts):
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        trained(kind, texts)


@pytest.mark.parametrize("text", ["half a pair \ud83d", None])
def test_what_is_no_text_is_refused(byte_level, text):
    with pytest.raises(DataError, match="cannot be tokenised"):
        byte_level.encode_batch([text])


@pytest.mark.parametrize("content", ["", "{}", "no json"])
def test_a_file_that_is_no_tokenizer_is_refused(content, tmp_path):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=r"tokenizer\.json' is no tokenizer\.json: "):
        Tokenizer.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"vocab_size": 259}, "vocab_size must be at least 260 for bpe, not 259"),
        ({"vocab_size": 255, "special_tokens": False}, "vocab_size must be at least 256 for bpe, not 255"),
        ({"path": "/nowhere/tokenizer.json"}, r"data\.tokenizer\.path '/nowhere/tokenizer\.json' does not exist"),
        ({"train_documents": 0}, "train_documents and train_bytes must be at least 1"),
        ({"train_bytes": 0}, "train_documents and train_bytes must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        TokenizerConfig(**settings)


def test_special_names_are_the_four():
    assert list(SPECIAL.values()) == ["<pad>", "<bos>", "<eos>", "<unk>"]
