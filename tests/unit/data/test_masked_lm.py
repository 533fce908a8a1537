"""What masked language modelling hides: by hand, in proportion, never twice the same in training, always in evaluation."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lightning_nlp.data.masked_lm import MaskedLMData
from lightning_nlp.data.objectives import IGNORED, Masking, hide, masked_lm
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError

MASK, SPECIAL, ORDINARY = 4, np.arange(5), np.arange(5, 1000)
BERT = Masking(MASK, SPECIAL, ORDINARY)
HALF = Masking(MASK, np.arange(5), np.array([50, 60, 70, 80]), share=0.5, random=0.25, kept=0.25)
N = IGNORED

# Draws of four tokens: places in the order, fates (random below .25, kept below .5, else mask), random tokens, rounding.
BY_HAND = {
    "two lowest draws, both masked": ([10, 11, 12, 13], None, [.9, .1, .8, .2], [.9, .9, .9, .9], [0] * 4, 0, [10, 4, 12, 4], [N, 11, N, 13]),
    "one random, one kept": ([10, 11, 12, 13], None, [.9, .1, .8, .2], [0, .24, 0, .26], [.99, .5, .99, .99], 0, [10, 70, 12, 13], [N, 11, N, 13]),
    "2.5 rounded down": ([10, 11, 12, 13, 14], None, [.1, .2, .3, .4, .5], [.9] * 5, [0] * 5, .49, [4, 4, 12, 13, 14], [10, 11, N, N, N]),
    "2.5 rounded up": ([10, 11, 12, 13, 14], None, [.1, .2, .3, .4, .5], [.9] * 5, [0] * 5, .51, [4, 4, 4, 13, 14], [10, 11, 12, N, N]),
    "one at least": ([10], None, [.7], [.9], [0], 0, [4], [10]),
    "special tokens are passed over": ([3, 10, 1, 11], None, [.5, .1, .9, .9], [.9] * 4, [0] * 4, 0, [3, 10, 1, 4], [N, N, N, 11]),
    "nothing but special tokens": ([3, 1], None, [.1, .2], [.9] * 2, [0] * 2, 0, [3, 1], [N, N]),
    "nothing": ([], None, [], [], [], .9, [], []),
    "whole words, each token with its own fate": ([10, 11, 12, 13], [0, 0, 1, 2], [.1, .9, .8, .7], [.9, .1, .9, .9], [0, 0, 0, 0], 0, [4, 50, 12, 13], [10, 11, N, N]),
}  # fmt: skip


@pytest.mark.parametrize("case", BY_HAND)
def test_hidden_tokens_by_hand(case):
    ids, words, order, fates, randoms, rounding, tokens, labels = BY_HAND[case]
    draws = np.array([*order, *fates, *randoms, rounding], dtype=np.float64)
    given = np.array(ids, dtype=np.int32)
    found = hide(given, draws, HALF, None if words is None else np.array(words))
    assert [part.tolist() for part in found] == [tokens, labels]
    assert given.tolist() == ids  # never written to


# (place, what stands there, what stood there) of documents 100, 101, ...: the same on every machine, for ever.
GOLDEN = [
    ((7, 0, 3), [(1, 4, 100), (2, 4, 101), (18, 4, 117)]),
    ((7, 0, 4), [(7, 4, 106), (16, 4, 115), (20, 4, 119)]),
    ((3,), [(1, 4, 100), (2, 963, 101), (3, 102, 102)]),
]


@pytest.mark.parametrize(("key", "expected"), GOLDEN)
def test_a_key_always_hides_the_same(key, expected):
    example = masked_lm(np.arange(100, 120), "doc", key, BERT, 1, 2)
    rows = enumerate(zip(example.tokens.tolist(), example.labels.tolist(), strict=True))
    assert [(place, token, label) for place, (token, label) in rows if label != N] == expected
    assert (example.tokens[0], example.tokens[-1], example.full_length, example.truncated) == (1, 2, 22, False)
    assert example.tokens.dtype == example.labels.dtype == np.int32


@pytest.mark.parametrize("ids", [[], [0, 1, 3], [4]])
def test_nothing_to_hide(ids):
    assert masked_lm(ids, "doc", (1,), BERT, 1, 2) is None


def test_proportions_over_many_tokens():
    """80/10/10 within four standard deviations of the binomial; random tokens are even and never special."""
    ids = np.random.default_rng(0).integers(0, 1000, 1_000_000).astype(np.int32)
    example = masked_lm(ids, "doc", (1, 2, 3), BERT, None, None)
    chosen = example.labels != N
    assert np.array_equal(example.labels[chosen], ids[chosen]) and np.array_equal(example.tokens[~chosen], ids[~chosen])
    ordinary = int((ids > 4).sum())
    assert chosen.sum() in (int(0.15 * ordinary), int(0.15 * ordinary) + 1)
    assert ids[chosen].min() > 4
    count, new = int(chosen.sum()), example.tokens[chosen]
    drawn = new[(new != MASK) & (new != ids[chosen])]
    expected = {
        "mask": (int((new == MASK).sum()), 0.8),
        "random": (len(drawn), 0.1 * 994 / 995),
    }  # 1 in 995 draws itself
    expected["kept"] = (count - expected["mask"][0] - expected["random"][0], 0.1 + 0.1 / 995)
    for name, (found, share) in expected.items():
        assert abs(found - share * count) < 4 * (count * share * (1 - share)) ** 0.5, name
    frequencies = np.bincount(drawn, minlength=1000)[5:]
    assert drawn.min() > 4
    assert abs(((frequencies - frequencies.mean()) ** 2 / frequencies.mean()).sum() - 995) < 5 * (2 * 995) ** 0.5


@pytest.mark.parametrize(("length", "share"), [(1, 1.0), (3, 1 / 3), (10, 0.15), (30, 0.15)])
def test_short_documents_meet_the_share_on_average(length, share):
    """Two of ten in half of the documents, one in the others: never a bias towards long or short documents."""
    rounds = 4000
    places = np.zeros(length)
    for visit in range(rounds):
        places += masked_lm(np.arange(5, 5 + length), "doc", (1, visit, 0), BERT, None, None).labels != N
    total, mean = rounds * length * share, rounds * share
    assert abs(places.sum() - total) < 4 * total**0.5
    assert np.abs(places - mean).max() < 5 * (mean * (1 - share) + 1e-9) ** 0.5  # no place is favoured


# A corpus, seen through the data module ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents of one to ninety words, in three splits."""
    directory = tmp_path_factory.mktemp("masked")
    draw = np.random.default_rng(1)
    words = [
        "the",
        "cat",
        "sat",
        "on",
        "a",
        "mat",
        "while",
        "one",
        "dog",
        "ran",
        "over",
        "red",
        "hills",
        "and",
        "birds",
    ]
    for split, size in (("train", 60), ("validation", 12), ("test", 3)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                text = " ".join(draw.choice(words, int(draw.choice([1, 4, 20, 90]))))
                stream.write(json.dumps({"id": f"{split}-{number}", "text": text}) + "\n")
    return directory


def make(texts, *, ranks=1, rank=0, stage="fit", **settings):
    settings = {"tokenizer": TokenizerConfig(vocab_size=300), "max_length": 32, "seed": 5, **settings}
    data = MaskedLMData(str(texts), global_batch_size=8, lanes=4, **settings)
    data.setup(stage)
    data.plan(ranks, rank)
    return data


def train_batches(data, count):
    return [batch for batch, _ in zip(data.train_dataloader(), range(count), strict=False)]


def rows_of(batches):
    """``{row number: (tokens, labels, segments)}``."""
    names = ("tokens", "labels", "segments")
    return {
        number: tuple(batch[name][place].tolist() for name in names)
        for batch in batches
        for place, number in enumerate(batch["row_ids"].tolist())
    }


def test_a_row_is_its_documents_with_labels_at_hidden_tokens_alone(texts):
    data = make(texts)
    known = {row["id"]: data.tokenizer.encode(row["text"]) for row in data.split("train").scan(0)}
    whole = Counter()
    for batch in train_batches(data, 30):
        original = batch["tokens"].where(batch["labels"] == N, batch["labels"])
        for row, ids in enumerate(batch["example_ids"]):
            for number, name in enumerate(ids, 1):
                name, _, offset = name.partition("@")
                inside = batch["segments"][row] == number
                start, stop = int(offset or 0), int(offset or 0) + int(inside.sum())
                document = [data.tokenizer.bos_id, *known[name], data.tokenizer.eos_id]
                assert original[row][inside].tolist() == document[start:stop]
                whole[name] += 1
    assert len(whole) == 60  # every document was met, most more than once


def test_every_epoch_hides_other_tokens(texts):
    seen = {}
    for batch in train_batches(make(texts, max_length=128), 40):
        for row, ids in enumerate(batch["example_ids"]):
            for number, name in enumerate(ids, 1):
                labels = batch["labels"][row][batch["segments"][row] == number]
                if "@" not in name and len(labels) > 20:
                    seen.setdefault(name, []).append(tuple((labels[:20] != N).tolist()))
    repeated = {name: masks for name, masks in seen.items() if len(masks) > 3}
    assert len(repeated) > 10
    for name, masks in repeated.items():
        assert len(set(masks)) > len(masks) / 2, name


def test_ranks_micro_batches_and_reading_ahead_change_nothing(texts, monkeypatch):
    whole = rows_of(train_batches(make(texts), 10))
    for micro in (1, 4):
        assert rows_of(train_batches(make(texts, micro_batch_size=micro), 80 // micro)) == whole
    parts = [rows_of(train_batches(make(texts, ranks=2, rank=rank), 10)) for rank in (0, 1)]
    assert not parts[0].keys() & parts[1].keys() and parts[0] | parts[1] == whole
    monkeypatch.setattr("lightning_nlp.data.order.documents.READ_AHEAD", 1)
    assert rows_of(train_batches(make(texts), 10)) == whole
    assert rows_of(train_batches(make(texts, seed=6), 10)) != whole


@pytest.mark.parametrize("step", [1, 3, 9, 14])
def test_the_same_masks_after_a_restore(texts, step):
    """Also in the middle of a document, which is then prepared a second time."""
    data = make(texts)
    whole = rows_of(train_batches(data, 20))
    state = data._stream.state(20) if step == 20 else None
    first = make(texts)
    batches = iter(first.train_dataloader())
    for _ in range(step):
        next(batches)
    state = json.loads(json.dumps(first._stream.state(step)))
    assert step == 1 or any(lane["offset"] for lane in state["lanes"].values())
    second = make(texts)
    second.load_state_dict({"train": state})
    found = rows_of(train_batches(second, 20 - step))
    assert found == {number: row for number, row in whole.items() if number >= 8 * step}


def evaluated(data):
    return [rows_of([batch]) for batch in data.val_dataloader()]


def test_evaluation_hides_the_same_whatever_the_seed_the_epoch_and_the_rank(texts):
    once = evaluated(make(texts))
    data = make(texts, seed=99, stage="validate")
    assert evaluated(data) == evaluated(data) == once
    whole = {number: row for batch in once for number, row in batch.items()}
    parts = [make(texts, ranks=2, rank=rank) for rank in (0, 1)]
    assert {number: row for part in parts for batch in evaluated(part) for number, row in batch.items()} == whole
    labels = [label for _, row, _ in whole.values() for label in row]
    assert (
        0.1
        < sum(label != N for label in labels) / sum(segment > 0 for *_, row in whole.values() for segment in row)
        < 0.2
    )


def test_whole_words_are_hidden_with_all_their_tokens(texts):
    data = make(texts, whole_word=True, tokenizer=TokenizerConfig(vocab_size=270))
    for row in data.split("train").scan(0):
        (ids, words), row["key"] = data.tokenizer.encode_words([row["text"]])[0], (1, 2)
        (example,) = data.prepare([row])
        chosen = example.labels[1:-1] != N
        assert np.array_equal(np.isin(words, words[chosen]), chosen)
        assert len(np.unique(words)) == len(row["text"].split()) < len(ids) or len(ids) < 3


def test_texts_to_fill_and_splits_of_ones_own(texts, tmp_path):
    source = tmp_path / "fill.txt"
    source.write_text("the <mask> sat on <mask> mat\n\nno mask\n" + "cat " * 60 + "\n")
    data = make(texts, stage="validate")
    bos, eos, mask = data.tokenizer.bos_id, data.tokenizer.eos_id, data.tokenizer.mask_id
    data.predict_path = str(source)
    first, second, third = (
        rows
        for batch in data.predict_dataloader()
        for rows in zip(batch["tokens"], batch["segments"], batch["cut"], batch["texts"], strict=True)
    )
    words = [data.tokenizer.encode(part) for part in ("the", " sat on", " mat")]
    assert first[0][first[1] > 0].tolist() == [bos, *words[0], mask, *words[1], mask, *words[2], eos]
    assert (first[2], second[2], second[3]) == (0, 0, "no mask")
    assert int((third[1] > 0).sum()) == 32 and third[0][31] == eos
    assert third[2] == len(data.tokenizer.encode(third[3])) + 2 - 32
    data.predict_path = None  # the test split: what evaluation hides there
    (batch,) = data.predict_dataloader()
    assert (batch["labels"] != N).any() and (batch["tokens"] == mask).any()


MISTAKES = [
    ({"mask_prob": 15}, "data.mask_prob must be between 0 and 1, not 15"),
    ({"mask_prob": 0.0}, "data.mask_prob must be between 0 and 1"),
    ({"random_token_prob": -0.1}, r"data.random_token_prob must be in \[0, 1\]"),
    ({"random_token_prob": 0.6, "leave_unmasked_prob": 0.6}, "together more than 1"),
    ({"whole_word": True, "tokenizer": TokenizerConfig(kind="byte")}, "knows words, such as data.tokenizer.kind bpe"),
    ({"whole_word": True, "tokenizer": TokenizerConfig(kind="char")}, "knows words, such as data.tokenizer.kind bpe"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes(texts, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(texts, **settings)


def test_a_tokenizer_without_a_mask_token_is_refused(texts, tmp_path):
    path = tmp_path / "tokenizer.json"
    Tokenizer.train(["a text"], TokenizerConfig(kind="byte")).save(path)
    with pytest.raises(ConfigError, match=r"no mask token.*data.tokenizer.mask_token"):
        make(texts, tokenizer=TokenizerConfig(path=str(path)))


# The tokenizer ----------------------------------------------------------------------------------------------------

# Hashes of tokenizers trained before there was a mask token: runs made then must still find theirs.
BEFORE = {
    ("bpe", True): "11f35c3a929351a5",
    ("bpe", False): "bf1b5788ec74c6bb",
    ("byte", True): "d759d6c9b3ca3464",
    ("byte", False): "a7a585cc1fb03916",
    ("char", True): "193cbe5c874c18be",
    ("char", False): "7978bcdc84d46eda",
}


@pytest.mark.parametrize(("kind", "special"), BEFORE)
def test_the_mask_token_is_there_only_when_asked_for(kind, special):
    texts = ["the cat sat on the mat.\n", "naïve café, the coöperation"]
    without, having = (
        Tokenizer.train(texts, TokenizerConfig(kind=kind, vocab_size=300, special_tokens=special, mask_token=mask))
        for mask in (False, True)
    )
    assert without.hash.startswith(BEFORE[kind, special])
    assert (without.mask_id, without.mask_name, having.mask_id) == (None, "", 4 * special)
    assert having.special_ids == list(range(4 * special + 1))
    if kind != "char":  # written in a text, it is text
        assert having.decode(having.encode("the <mask> cat")) == "the <mask> cat"
        assert having.mask_id not in having.encode("the <mask> cat")
    with pytest.raises(ConfigError, match=r"no mask token"):
        without.encode_masked("the <mask>")


@pytest.mark.parametrize(
    ("kind", "text", "parts"),
    [
        ("bpe", "the <mask> sat", ["the", None, " sat"]),  # the hidden word has its space in its token
        ("bpe", "<mask>, <mask><mask>", [None, ",", None, None]),
        ("byte", "the <mask> sat", ["the ", None, " sat"]),
        ("char", "the <mask> sat", ["the ", None, " sat"]),
        ("bpe", "no mask", ["no mask"]),
    ],
)
def test_the_name_of_the_mask_token_in_a_text(kind, text, parts):
    tokenizer = Tokenizer.train(["the cat sat, no mask"], TokenizerConfig(kind=kind, vocab_size=300, mask_token=True))
    expected = [id for part in parts for id in ([tokenizer.mask_id] if part is None else tokenizer.encode(part))]
    assert tokenizer.encode_masked(text) == expected


def test_published_names_are_known(tmp_path: Path):
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers

    backend = Backend(models.WordPiece({"[PAD]": 0, "[UNK]": 1, "[MASK]": 2, "the": 3, "cat": 4}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = Tokenizer(backend)
    assert (tokenizer.mask_id, tokenizer.mask_name, tokenizer.special_ids) == (2, "[MASK]", [0, 1, 2])
    assert tokenizer.encode_masked("the [MASK] cat") == [3, 2, 4]
