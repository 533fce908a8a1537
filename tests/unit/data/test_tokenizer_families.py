"""Tokenizers of published families, made as theirs are: special tokens, bytes and words are found by themselves."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

TEXTS = ["The cat sat on the mat, the cat sat.", "Zoë naïve café 12 cats", "日本語 🙂 cat"] * 4
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def train(backend: tokenizers.Tokenizer, trainer) -> tokenizers.Tokenizer:
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def bpe(special: list[str], size: int = 320) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=BYTES, show_progress=False)


def gpt2() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    return train(backend, bpe(["<|endoftext|>"]))


def llama3() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    train(backend, bpe(["<|begin_of_text|>", "<|end_of_text|>"]))
    backend.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template(backend, "<|begin_of_text|> $A")]
    )
    return backend


def roberta() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    train(backend, bpe(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return backend


def bert() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer, backend.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    train(backend, trainers.WordPieceTrainer(vocab_size=100, special_tokens=special, show_progress=False))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return backend


def t5() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=70, special_tokens=special, unk_token="<unk>", show_progress=False)
    train(backend, trainer)
    backend.add_special_tokens(["<extra_id_1>", "<extra_id_0>"])
    backend.post_processor = template(backend, "$A </s>")
    return backend


def llama() -> tokenizers.Tokenizer:
    """No pre-tokenizer: SentencePiece's space is put in by the normalizer, what has no piece falls back to bytes."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters, merges = (
        list("▁Thecatsonm,."),
        [("▁", "T"), ("h", "e"), ("▁T", "he"), ("▁", "c"), ("▁c", "at"), ("a", "t")],
    )
    pieces = [*letters, *(left + right for left, right in merges)]
    vocabulary = {name: number for number, name in enumerate([*names, *pieces])}
    merges = sorted(merges, key=lambda pair: len("".join(pair)))
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.add_tokens([AddedToken("catch-all", special=False, normalized=False)])
    backend.post_processor = template(backend, "<s> $A")
    return backend


def clip() -> tokenizers.Tokenizer:
    """Words end with a mark, instead of beginning with a space."""
    backend = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Whitespace(), decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=120, special_tokens=["<unk>"], end_of_word_suffix="</w>", show_progress=False
    )
    return train(backend, trainer)


def template(backend: tokenizers.Tokenizer, single: str):
    named = [(name, backend.token_to_id(name)) for name in single.split() if name != "$A"]
    return processors.TemplateProcessing(single=single, special_tokens=named)


FAMILIES: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    "gpt2": gpt2, "llama3": llama3, "roberta": roberta, "bert": bert, "t5": t5, "llama": llama, "clip": clip,
}  # fmt: skip


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """A family's tokenizer, written to a file and read again as anybody's is."""
    made: dict[str, Tokenizer] = {}
    folder = tmp_path_factory.mktemp("families")

    def load(name: str) -> Tokenizer:
        if name not in made:
            FAMILIES[name]().save(str(folder / f"{name}.json"))
            made[name] = Tokenizer.load(folder / f"{name}.json")
        return made[name]

    return load


# Names of pad, bos, eos, unk and mask. GPT-2 and T5 put nothing before a text, whatever their vocabulary holds.
SPECIAL = {
    "gpt2": (None, None, "<|endoftext|>", None, None),
    "llama3": (None, "<|begin_of_text|>", "<|end_of_text|>", None, None),
    "roberta": ("<pad>", "<s>", "</s>", "<unk>", "<mask>"),
    "bert": ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"),
    "t5": ("<pad>", None, "</s>", "<unk>", None),
    "llama": (None, "<s>", "</s>", "<unk>", None),
    "clip": (None, None, None, "<unk>", None),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_special_tokens_are_found(family, name):
    tokenizer = family(name)
    ids = (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.mask_id)
    assert tuple(None if id is None else tokenizer.backend.id_to_token(id) for id in ids) == SPECIAL[name]
    assert set(ids) - {None} <= set(tokenizer.special_ids)
    assert not set(tokenizer.special_ids) & set(tokenizer.encode("The cat <s> sat [CLS]")) - {tokenizer.unk_id}
    assert tokenizer.vocab_size == len(tokenizer.backend.get_vocab(with_added_tokens=True))


LOSSLESS = ["gpt2", "llama3", "roberta", "llama"]
HARD = [
    "The cat",
    "Zoë naïve 12",
    "日本語 🙂 cat",
    " two  spaces ",
    "\n\ttabs\r\n",
    "e\u0301 \u00e9",
    "👩‍👩‍👧‍👦",
    "<s>",
]


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("text", HARD)
def test_bytes_of_tokens_sum_to_those_of_the_text(family, name, text):
    tokenizer = family(name)
    ids = tokenizer.encode(text)
    spelled = [tokenizer.spelling(id, first=place == 0) for place, id in enumerate(ids)]
    assert b"".join(spelled) == text.encode() and tokenizer.decode(ids) == text
    assert [tokenizer.bytes_of(id, first=place == 0) for place, id in enumerate(ids)] == list(map(len, spelled))


@pytest.mark.parametrize(
    ("name", "text", "spelled"),
    [  # spaces are lost between BERT's words, accents and capitals too; what is unknown spells nothing
        ("bert", "The Zoë, café", ["the", "zoe", ",", "cafe"]),
        ("bert", "cat 女", ["cat", ""]),
        ("t5", "The cat  sat", ["The", " cat", " sat"]),
        ("t5", "cat 女", ["cat", " ", ""]),
        ("clip", "The cat, 12", ["The", "cat", ",", "12"]),
        ("llama", "The catch-all", ["The", " ", "catch-all"]),  # the last one was added to the vocabulary, as it stands
    ],
)
def test_what_lossy_tokenizers_spell(family, name, text, spelled):
    tokenizer = family(name)
    ids = tokenizer.encode(text)
    parts = [tokenizer.spelling(id, first=place == 0).decode() for place, id in enumerate(ids)]
    assert "".join(parts) == "".join(spelled)
    assert sum(id == tokenizer.unk_id for id in ids) == text.count("女")


@pytest.mark.parametrize("name", FAMILIES)
def test_words_are_known(family, name):
    tokenizer = family(name)
    assert tokenizer.knows_words and tokenizer.spaced == (name not in ("bert", "clip"))
    text = "The sat mat, cat"
    ((ids, words),) = tokenizer.encode_words([text])
    assert ids.tolist() == tokenizer.encode(text) and ids.dtype == words.dtype == "int32"
    found = []
    for _, group in groupby(zip(words.tolist(), ids.tolist(), strict=True), key=lambda pair: pair[0]):
        found.append(b"".join(tokenizer.spelling(id) for _, id in group).decode().strip().lower())
    sentencepiece = name in ("t5", "llama")  # words end where a space is
    assert found == (["the", "sat", "mat,", "cat"] if sentencepiece else ["the", "sat", "mat", ",", "cat"])


def test_a_token_added_to_the_vocabulary_is_a_word_by_itself():
    backend = gpt2()
    backend.add_tokens(["catch-all"])
    tokenizer = Tokenizer(backend)
    ((ids, words),) = tokenizer.encode_words(["catch-allcatch-all cat"])
    assert tokenizer.bytes_of(int(ids[0])) == len("catch-all") and ids[0] == ids[1] and len(set(words.tolist())) == 3


def test_the_hidden_word_takes_its_space_where_words_begin_with_one(family):
    roberta, bert = family("roberta"), family("bert")
    for tokenizer, parts in ((roberta, ["The", None, " sat"]), (bert, ["the", None, "sat"])):
        expected = [id for part in parts for id in ([tokenizer.mask_id] if part is None else tokenizer.encode(part))]
        assert tokenizer.encode_masked(f"The {tokenizer.mask_name} sat") == expected


def test_an_unknown_token_of_any_name_is_known():
    names = {"UNK": 0, "cat": 1}
    assert Tokenizer(tokenizers.Tokenizer(models.WordLevel(names, unk_token="UNK"))).unk_id == 0
    ends = {"<|endoftext|>": 0, "cat": 1}  # as some write GPT-2's: the end of a text is not the unknown
    assert Tokenizer(tokenizers.Tokenizer(models.WordLevel(ends, unk_token="<|endoftext|>"))).unk_id is None
