"""BART's kinds of damage: by hand, in proportion, and never more than a text that can be told from its copy."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_nlp.data.denoising import DenoisingData
from lightning_nlp.data.objectives import Noise, denoising
from lightning_nlp.data.objectives.denoising import infilled, permuted, poisson_spans, poisson_table
from lightning_nlp.data.tokenizers.sentences import encode_sentences, sentence_starts
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError

MASK = 4
NOTHING = {"permute_sentences": False, "infill": 0.0}
BART = Noise(MASK)


def test_a_key_always_damages_in_the_same_way():
    """The same on every machine, for ever."""
    example = denoising(np.arange(100, 120), "doc", (1, 2, 4), BART, 0, 1, np.arange(20) // 5)
    shown = [105, 106, 107, 4, 109, 115, 116, 4, 101, 4, 103, 104, 110, 111, 112, 113, 114, 1]
    assert example.source.tolist() == shown
    assert example.tokens.tolist() == [0, *range(100, 120)]
    assert example.labels.tolist() == [*range(100, 120), 1]
    assert (example.full_length, example.truncated) == (39, False)


def test_spans_are_poisson():
    """P(0) = e^-3 = 0.0498, P(3) = 0.2240 (a table of the Poisson distribution), within four deviations."""
    assert poisson_table(3.0)[:5] == pytest.approx([0.0498, 0.1991, 0.4232, 0.6472, 0.8153], abs=5e-5)
    lengths = np.concatenate([poisson_spans(3000, 3.0, (7, number))[:-1] for number in range(20)])
    count = len(lengths)
    assert abs(lengths.mean() - 3.0) < 4 * math.sqrt(3 / count)
    for length, expected in {0: 0.0498, 1: 0.1494, 3: 0.2240, 6: 0.0504}.items():
        deviation = math.sqrt(expected * (1 - expected) / count)
        assert abs((lengths == length).mean() - expected) < 4 * deviation, length


@given(total=st.integers(0, 300), mean=st.floats(1, 20), key=st.tuples(st.integers(0, 2**40)))
def test_spans_hold_exactly_what_is_asked_for(total, mean, key):
    lengths = poisson_spans(total, mean, key)
    assert lengths.sum() == total and len(lengths) <= total and (lengths >= 0).all()


@given(
    length=st.integers(0, 200), infill=st.floats(0, 0.99), mean=st.floats(1, 9), key=st.tuples(st.integers(0, 2**40))
)
def test_what_stays_keeps_its_order_and_masks_stand_apart(length, infill, mean, key):
    ids = np.arange(100, 100 + length)
    found = infilled(ids, Noise(MASK, infill=infill, mean_length=mean), key)
    kept = found[found != MASK]
    assert len(found) <= length and (np.diff(kept) > 0).all() and np.isin(kept, ids).all()
    assert length - len(kept) in (math.floor(infill * length), math.ceil(infill * length))
    masks = np.flatnonzero(found == MASK)
    assert (np.diff(masks) > 1).all()
    # Every gap in what stays has its mask: nothing vanishes without a trace.
    around = np.concatenate(([99], found, [100 + length]))
    for one, other in pairwise(around):
        assert MASK in (one, other) or other == one + 1


def test_shares_are_met_on_average_and_neither_end_is_favoured():
    hidden = np.zeros(10)
    for number in range(4000):
        found = infilled(np.arange(100, 110), BART, (3, number))
        hidden += ~np.isin(np.arange(100, 110), found)
    assert abs(hidden.sum() - 12000) < 4 * 12000**0.5
    # A span has fewer ways to hold the first or the last token; apart from that, places are alike.
    assert (np.abs(hidden - hidden[::-1]) < 4 * (2 * hidden) ** 0.5).all()
    assert np.ptp(hidden[2:-2]) < 4 * (2 * hidden.mean()) ** 0.5


@pytest.mark.parametrize(
    ("settings", "check"),
    [
        ({"mask": 0.4}, lambda found, ids: (len(found), (found == MASK).sum()) == (20, 8) and (found[found != MASK] == ids[found != MASK]).all()),
        ({"delete": 0.25}, lambda found, ids: len(found) == 15 and (np.diff(found) > 0).all()),
        ({"rotate": 1.0}, lambda found, ids: (np.roll(found, int(found[0]) - 100) == ids).all()),
        ({}, lambda found, ids: (found == ids).all()),
    ],
)  # fmt: skip
def test_each_kind_alone(settings, check):
    ids = np.arange(100, 120)
    seen = set()
    for number in range(30):
        example = denoising(ids, "d", (number,), Noise(MASK, **NOTHING, **settings), 0, 1)
        assert check(example.source[:-1], ids) and example.labels[:-1].tolist() == ids.tolist()
        seen.add(tuple(example.source.tolist()))
    assert len(seen) > 10 or not settings


def test_sentences_are_moved_whole():
    sentences = np.array([0, 0, 0, 1, 2, 2])
    orders = {tuple(permuted(np.arange(10, 16), sentences, (number,)).tolist()) for number in range(200)}
    parts = ([10, 11, 12], [13], [14, 15])
    assert orders == {
        tuple(token for place in order for token in parts[place])
        for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    }
    assert permuted(np.zeros(0, dtype=int), np.zeros(0, dtype=int), (1,)).tolist() == []


SENTENCES = {
    "One. Two! Three?": ["One.", " Two!", " Three?"],
    'He said "no." She left...  Then': ['He said "no."', " She left...", "  Then"],
    "3.14 and example.com are none": ["3.14 and example.com are none"],
    "a line\nanother\n\nthe last\n": ["a line\n", "another\n\n", "the last\n"],
    "你好。他来了！（是吗？）好": ["你好。", "他来了！", "（是吗？）", "好"],  # noqa: RUF001
    "": [""],
}  # fmt: skip


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize("kind", ["byte", "bpe"])
def test_tokens_know_their_sentence(text, kind):
    starts = [0, *sentence_starts(text).tolist(), len(text)]
    assert [text[begin:end] for begin, end in pairwise(starts)] == SENTENCES[text]
    tokenizer = Tokenizer.train([*filter(None, SENTENCES)], TokenizerConfig(kind=kind, vocab_size=300))
    ((ids, sentences),) = encode_sentences(tokenizer, [text])
    assert ids.tolist() == tokenizer.encode(text)
    spelled = [tokenizer.decode(ids[sentences == number].tolist()) for number in range(len(SENTENCES[text]))]
    assert spelled == SENTENCES[text]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents of one to thirty sentences."""
    directory = tmp_path_factory.mktemp("denoising")
    draw = np.random.default_rng(1)
    for split, size in (("train", 40), ("validation", 9)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                words = [
                    f"{word}." if draw.random() < 0.3 else word
                    for word in draw.choice(["cat", "sat", "mat", "ran"], int(draw.choice([0, 1, 5, 60])))
                ]
                stream.write(json.dumps({"id": f"{split}-{number}", "text": " ".join(words)}) + "\n")
    return directory


def make(texts, **settings):
    settings = {"tokenizer": TokenizerConfig(kind="byte"), "max_length": 48, "seed": 5, **settings}
    data = DenoisingData(str(texts), global_batch_size=8, lanes=4, **settings)
    data.setup("fit")
    data.plan(1, 0)
    return data


def test_targets_are_the_documents_and_sources_are_not(texts):
    data = make(texts)
    known = {row["id"]: data.tokenizer.encode(row["text"]) for row in data.split("train").scan(0)}
    met, sources = {}, {}
    for batch, _ in zip(data.train_dataloader(), range(60), strict=False):
        for row, (name,) in enumerate(batch["example_ids"]):
            document, _, offset = name.partition("@")
            target = batch["labels"][row][batch["segments"][row] > 0].tolist()
            source = batch["source_tokens"][row][batch["source_segments"][row] > 0].tolist()
            assert target[:-1] == known[document][int(offset or 0) :][: len(target) - 1]
            assert len(source) <= len(target) <= 48 and source[-1] == target[-1] == data.tokenizer.eos_id
            met.setdefault(document, {})[int(offset or 0)] = len(target) - 1
            sources.setdefault(name, set()).add(tuple(source))
    assert met == {name: met[name] for name, ids in known.items() if ids}
    assert all(sum(met[name].values()) == len(ids) for name, ids in known.items() if ids)
    assert sum(len(found) > 1 for found in sources.values()) > len(sources) / 2


def test_texts_to_mend_name_the_mask(texts, tmp_path):
    (tmp_path / "in.txt").write_text("a<mask>b\n")
    data = make(texts)
    data.predict_path = str(tmp_path / "in.txt")
    (batch,) = data.predict_dataloader()
    a, b = (data.tokenizer.encode(letter)[0] for letter in "ab")
    assert batch["source_tokens"][0].tolist()[:4] == [a, data.tokenizer.mask_id, b, data.tokenizer.eos_id]


MISTAKES = [
    ({"infill_share": 1.0}, r"data.infill_share must be in \[0, 1\), not 1.0"),
    ({"rotate_prob": 2.0}, r"data.rotate_prob must be in \[0, 1\], not 2.0"),
    ({"mean_span_length": 0.0}, "data.mean_span_length must be at least 1"),
    ({"infill_share": 0.0, "permute_sentences": False}, "nothing is damaged"),
    ({"max_length": 3}, "data.max_length must be at least 4, not 3"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes(texts, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(texts, **settings)
