"""Streamed text: joined, it is what all tokens decode to; on the way, no piece holds half a character."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from lightning_nlp.data.tokenizers.added_tokens import decode_named, encode_named, named_ids
from lightning_nlp.data.tokenizers.streaming import TextStream
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig

TEXTS = ["the cat sat on the mat. don't!\n", "naïve café, die Übung — 日本語のテキスト 👩‍🚀🙂"]
KINDS = ["byte", "bpe", "unigram", "wordpiece", "word", "char", "sentencepiece"]


@functools.cache
def tokenizer_of(kind: str) -> Tokenizer:
    """A trained one with mask and sentinels, or one as SentencePiece makes them, with bytes for rare characters."""
    if kind != "sentencepiece":
        config = TokenizerConfig(kind=kind, vocab_size=340, mask_token=True, sentinels=3)
        return Tokenizer.train(TEXTS, config)
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁a", "b", "▁日", "."]
    model = models.BPE({name: number for number, name in enumerate(names)}, [], byte_fallback=True, unk_token="<unk>")
    backend = Backend(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return Tokenizer(backend)


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_pieces_make_the_text(kind, data):
    tokenizer = tokenizer_of(kind)
    special = st.integers(0, tokenizer.vocab_size - 1)
    if data.draw(st.booleans()):
        ids = data.draw(st.lists(special, max_size=30))
    else:
        ids = tokenizer.encode(data.draw(st.sampled_from(TEXTS)) + data.draw(st.text(max_size=8)))
    stream = TextStream(tokenizer)
    pieces = [*map(stream, ids)]
    assert "".join(pieces) + stream.end() == tokenizer.decode(ids)
    assert not any(piece.endswith("\ufffd") for piece in pieces)


@pytest.mark.parametrize("kind", ["byte", "sentencepiece"])
def test_a_character_comes_whole(kind):
    tokenizer = tokenizer_of(kind)
    bytes_of = "é日🙂".encode()
    names = [f"<0x{byte:02X}>" for byte in bytes_of]
    ids = [tokenizer.backend.token_to_id(name) for name in names] if kind != "byte" else tokenizer.encode("é日🙂")
    stream = TextStream(tokenizer)
    pieces = [*map(stream, ids)]
    if kind == "byte":
        assert pieces == ["", "é", "", "", "日", "", "", "", "🙂"]
        assert stream.end() == ""
    else:  # one more byte could still make all of them no text
        assert pieces == [""] * 9
        assert stream.end() == "é日🙂"


def test_half_a_character_at_the_end_is_shown_as_such():
    tokenizer = tokenizer_of("byte")
    stream = TextStream(tokenizer)
    assert [*map(stream, tokenizer.encode("a日")[:3])] == ["a", "", ""]
    assert stream.end() == "\ufffd"


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("bpe", "the <extra_id_0> sat <mask>.", "the<extra_id_0> sat<mask>."),  # the space is part of what is hidden
        ("byte", "the <extra_id_0> sat <mask>.", "the <extra_id_0> sat <mask>."),
        ("wordpiece", "the <extra_id_2> cat", "the <extra_id_2> cat"),
        ("char", "<mask><extra_id_1>", "<mask><extra_id_1>"),
        ("bpe", "a <extra_id_3> <eos>", "a <extra_id_3> <eos>"),  # no sentinel of this tokenizer, and no name to guess by
        ("byte", "", ""),
    ],
)  # fmt: skip
def test_names_of_tokens_in_a_text(kind, text, shown):
    tokenizer = tokenizer_of(kind)
    names = named_ids(tokenizer)
    assert [*names] == ["<mask>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>"]
    ids = encode_named(tokenizer, text, names)
    assert {names[name] for name in names if name in text} == set(ids) & set(names.values())
    assert decode_named(tokenizer, [tokenizer.bos_id, *ids, tokenizer.eos_id, tokenizer.pad_id], names) == shown
    stream = TextStream(tokenizer, lambda ids: decode_named(tokenizer, ids, names))
    assert "".join(map(stream, ids)) + stream.end() == shown


def test_a_tokenizer_without_such_tokens():
    tokenizer = Tokenizer.train([], TokenizerConfig(kind="byte"))
    assert named_ids(tokenizer) == {}
    assert encode_named(tokenizer, "<mask>", {}) == tokenizer.encode("<mask>")
