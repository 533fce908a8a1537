"""Every kind that can be trained: the same in every process, right in bytes and words, refused when too small."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import get_args

import pytest

from lightning_nlp.data.progress_line import ProgressLine
from lightning_nlp.data.tokenizers.config import Kind
from lightning_nlp.data.tokenizers.of_run import first_texts, train_tokenizer
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError, DataError

KINDS = get_args(Kind)
LOSSLESS = ("bpe", "unigram", "byte")
TEXTS = [
    "The cat sat on the mat. The cats sat on mats.\n",
    "naïve café, the coöperation of 1984 and 2024",
    "Größe, Straße und Übermut; größer, übermütig",
    "我们在北京。北京在中国。",
    "def f(x):\n\treturn x + 1\r\n",
    "🙂 and 🙃 and 👩‍👩‍👧‍👦",
] * 3


def trained(kind: str, texts: list[str] = TEXTS, **settings) -> Tokenizer:
    return Tokenizer.train(texts, TokenizerConfig(kind=kind, **{"vocab_size": 320, **settings}))


@pytest.fixture(scope="module")
def tokenizer():
    made: dict[str, Tokenizer] = {}
    return lambda kind: made.setdefault(kind, made.get(kind) or trained(kind))


HASHES = """
import sys
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
texts = eval(sys.stdin.read())
for kind in sys.argv[1:]:
    print(kind, Tokenizer.train(texts, TokenizerConfig(kind=kind, vocab_size=320)).hash)
"""


def test_three_processes_train_the_same(tokenizer):
    """The library's own trainers of Unigram and WordPiece models give another one in each."""
    expected = [f"{kind} {tokenizer(kind).hash}" for kind in KINDS]
    for seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", HASHES, *KINDS]
        done = subprocess.run(command, input=repr(TEXTS), env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == expected


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_is_the_same(kind, tokenizer, tmp_path):
    tokenizer(kind).save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.hash == tokenizer(kind).hash and loaded.vocab_size == tokenizer(kind).vocab_size
    assert [ids.tolist() for ids in loaded.encode_batch(TEXTS)] == [tokenizer(kind).encode(text) for text in TEXTS]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({}, ["<pad>", "<bos>", "<eos>", "<unk>"]),
        ({"bos": False}, ["<pad>", "<eos>", "<unk>"]),
        ({"bos": False, "eos": False, "mask_token": True}, ["<pad>", "<unk>", "<mask>"]),
    ],
)
def test_special_tokens_are_those_asked_for(kind, settings, names):
    found = trained(kind, **settings)
    assert [found.backend.id_to_token(id) for id in found.special_ids] == names
    ids = {"<pad>": found.pad_id, "<bos>": found.bos_id, "<eos>": found.eos_id, "<unk>": found.unk_id}
    assert ids == {name: names.index(name) if name in names else None for name in ids}
    assert not set(found.special_ids) & set(found.encode("the <pad> <bos>")) - {found.unk_id}


@pytest.mark.parametrize("kind", ["unigram", "wordpiece", "word"])
def test_further_tokens_stand_at_the_end(kind):
    found = trained(kind, sentinels=2, extra_tokens=("<user>",), vocab_size=300)
    end = found.vocab_size
    assert end <= 300
    assert [found.backend.id_to_token(end - place) for place in (1, 2, 3)] == ["<extra_id_0>", "<extra_id_1>", "<user>"]


@pytest.mark.parametrize("kind", LOSSLESS)
@pytest.mark.parametrize(
    "text", [*TEXTS[:6], "", " ", "  two  spaces ", "<pad> a <unk>", "\x00\x7f\u00a0\ufeff", "e\u0301"]
)
@pytest.mark.parametrize("split_digits", [False, True])
def test_byte_level_kinds_give_any_text_back(kind, text, split_digits, tokenizer):
    found = trained(kind, split_digits=True) if split_digits else tokenizer(kind)
    ids = found.encode(text)
    assert found.decode(ids) == text
    assert b"".join(found.spelling(id) for id in ids) == text.encode()


@pytest.mark.parametrize(
    ("kind", "text", "spelled"),
    [
        ("char", "Größe 北京 🙂", "Größe 北京 🙂"),
        ("char", "größte Ärger", "größte rger"),  # an unknown token spells nothing
        ("wordpiece", "The  cats,\n北京 Straße 🙂", "Thecats,北京Straße🙂"),  # spaces are lost
        ("wordpiece", "the Ж cat", "thecat"),
        ("word", "The  cats,\n北京 Straße 🙂", "Thecats,北京Straße🙂"),
        ("word", "The dogs sat", "Thesat"),
    ],
)
def test_what_lossy_kinds_spell(kind, text, spelled, tokenizer):
    found = tokenizer(kind)
    ids = found.encode(text)
    assert b"".join(found.spelling(id) for id in ids).decode() == spelled
    assert sum(map(found.bytes_of, ids)) == len(spelled.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_spell_nothing(kind, tokenizer):
    assert [tokenizer(kind).bytes_of(id) for id in (*tokenizer(kind).special_ids, 10**6)] == [0] * 5


@pytest.mark.parametrize(
    ("kind", "words"),
    [  # numbers of the words of "The cats, 1984 北京"
        ("bpe", ["The", " cats", ",", " 1984", " 北京"]),
        ("unigram", ["The", " cats", ",", " 1984", " 北京"]),
        ("wordpiece", ["The", "cats", ",", "1984", "北", "京"]),
        ("word", ["The", "cats", ",", "1984", "北", "京"]),
    ],
)
def test_words(kind, words, tokenizer):
    found = tokenizer(kind)
    assert found.knows_words and found.spaced == words[1].startswith(" ")
    ((ids, numbers),) = found.encode_words(["The cats, 1984 北京"])
    parts = [b""] * (max(numbers) + 1)
    for id, number in zip(ids.tolist(), numbers.tolist(), strict=True):
        parts[number] += found.spelling(id)
    assert [part.decode() for part in parts] == words


@pytest.mark.parametrize("kind", ["byte", "char"])
def test_bytes_and_characters_know_no_words(kind, tokenizer):
    assert not tokenizer(kind).knows_words and not tokenizer(kind).spaced


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("byte", "char")])
def test_digits_can_be_tokens_of_their_own(kind):
    texts = ["in 1984 1984 1984 1984 there were 1984 years"] * 5
    joined, apart = trained(kind, texts), trained(kind, texts, split_digits=True)
    assert len(apart.encode("1984")) == 4 > len(joined.encode("1984"))
    assert [apart.spelling(id) for id in apart.encode("1984")] == [b"1", b"9", b"8", b"4"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("settings", "text", "same"),
    [
        ({}, "ÉCOLE", None),
        ({"lowercase": True}, "ÉCOLE", "école"),
        ({"strip_accents": True}, "ÉCOLE", "ECOLE"),
        ({"lowercase": True, "strip_accents": True}, "ÉCOLE", "ecole"),
        ({"unicode": "nfc"}, "e\u0301cole", "école"),
        ({"unicode": "nfkc"}, "\ufb01n \uff11", "fin 1"),  # a ligature, a full-width digit
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else None,
)
def test_normalisation_is_what_was_asked_for(kind, settings, text, same, tmp_path):
    texts = ["ÉCOLE école ECOLE ecole e\u0301cole fin 1 \ufb01n \uff11"] * 3
    trained(kind, texts, **settings).save(tmp_path / "tokenizer.json")
    found = Tokenizer.load(tmp_path / "tokenizer.json")  # and is kept with the tokenizer
    if same is None:
        assert found.decode(found.encode(text)) == text
        assert found.encode(text) != found.encode("école") != found.encode("ecole")
    else:
        assert found.encode(text) == found.encode(same) and found.unk_id not in found.encode(text)
        assert found.decode(found.encode(text)) == same


FREQUENT = ["cat cat cat dog dog bird"] * 2


@pytest.mark.parametrize(
    ("kind", "least", "known", "unknown"),
    [
        ("word", 4, ["cat", "dog"], ["bird"]),
        ("word", 6, ["cat"], ["dog", "bird"]),
        ("char", 6, list("cat"), list("bir")),
        ("wordpiece", 6, ["cat", "tat"], ["dog", "bird"]),  # letters that are rare are unknown too
    ],
)
def test_what_is_rarer_than_asked_is_unknown(kind, least, known, unknown):
    found = trained(kind, FREQUENT, min_frequency=least)
    assert all(found.unk_id not in found.encode(text) for text in known)
    assert all(found.encode(text) == [found.unk_id] for text in unknown)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_pieces_rarer_than_asked_are_not_learnt(kind):
    counts = [len(trained(kind, FREQUENT, min_frequency=least).encode("cat bird")) for least in (2, 6, 100)]
    assert counts[0] < counts[1] < counts[2] == len("cat bird")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "unigram", "vocab_size": 259}, "vocab_size must be at least 260 for unigram, not 259"),
        ({"kind": "unigram", "vocab_size": 257, "bos": False}, "vocab_size must be at least 259 for unigram"),
        ({"kind": "word", "vocab_size": 4}, "vocab_size must be at least 5 for word, not 4"),
        ({"kind": "wordpiece", "vocab_size": 4}, "vocab_size must be at least 5 for wordpiece, not 4"),
        ({"kind": "word", "special_tokens": False}, r"special_tokens: word cannot do without <unk>"),
        ({"kind": "wordpiece", "special_tokens": False}, r"special_tokens: wordpiece cannot do without <unk>"),
        ({"min_frequency": -1}, "min_frequency must be at least 0, not -1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TokenizerConfig(**settings)


def test_a_vocabulary_smaller_than_the_letters_is_refused():
    """WordPiece has every letter twice: at the beginning of a word, and inside."""
    message = r"at least 10 for wordpiece and the 3 characters of these texts, not 9 \(data.tokenizer.min_frequency"
    with pytest.raises(ConfigError, match=message):
        trained("wordpiece", ["abc cab bca"], vocab_size=9)
    assert trained("wordpiece", ["abc cab bca"], vocab_size=10).vocab_size == 10


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "byte"])
def test_no_text_is_refused(kind):
    with pytest.raises(DataError, match="no text to train a tokenizer on"):
        trained(kind, ["", ""])


@pytest.mark.parametrize(
    ("documents", "bytes", "expected"),
    [
        (9, 100, ["abc", "de", "größe", "last"]),
        (2, 100, ["abc", "de", "größe"]),
        (9, 5, ["abc", "de"]),
        (9, 4, ["abc", "d"]),
        (9, 8, ["abc", "de", "gr"]),  # the third byte is half of a letter
        (9, 9, ["abc", "de", "grö"]),
    ],
)
def test_training_reads_as_much_as_it_may(documents, bytes, expected):
    texts = iter([["abc", "de"], ["größe"], ["last"]])
    config = TokenizerConfig(train_documents=documents, train_bytes=bytes)
    assert list(first_texts(texts, config, ProgressLine())) == expected


def test_progress_is_one_line_on_a_terminal_and_nothing_elsewhere(capsys, monkeypatch):
    config = TokenizerConfig(kind="char")
    train_tokenizer([["abc"]], config)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    train_tokenizer([["abc"]], config)
    lines = capsys.readouterr().err.split("\r\x1b[2K")
    assert lines[1:] == [
        "tokenizer: 1 documents, 0.0 MB read",
        "tokenizer: learning from 1 documents, 0.0 MB",
        "",
    ]
