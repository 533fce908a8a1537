"""Span corruption: T5's own numbers, nothing lost, nothing twice; long documents in pieces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_nlp.data.objectives import Spans, span_corruption
from lightning_nlp.data.objectives.pieces import pieces
from lightning_nlp.data.objectives.span_corruption import composition, corrupt, span_mask
from lightning_nlp.data.span_corruption import SpanCorruptionData
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError

SENTINELS = np.arange(999, 0, -1)

# (source length, density, mean span) -> (raw length, target length): t5 `preprocessors_test.py`, random_spans_helper,
# and the 512 -> 568 that T5 was trained with.
HELPER = [((64, 0.2, 2), (70, 22)), ((64, 0.2, 1), (63, 27)), ((512, 0.15, 3), (568, 114))]


@pytest.mark.parametrize(("given_", "expected"), HELPER)
def test_lengths_are_those_of_t5(given_, expected):
    length, density, mean = given_
    spans = Spans(density, mean)
    raw = spans.raw_length(length)
    assert (raw, spans.lengths(raw)[1]) == expected
    assert spans.lengths(raw)[0] <= length < spans.lengths(raw + 1)[0]


# t5 `preprocessors_test.py`: tokens 10 to 15 of a vocabulary of 1000; the targets follow from the same rule.
CORRUPTED = {
    "TTFFTF": ([999, 12, 13, 998, 15], [999, 10, 11, 998, 14]),
    "FFTTFT": ([10, 11, 999, 14, 998], [999, 12, 13, 998, 15]),
    "FFFFFF": ([10, 11, 12, 13, 14, 15], []),
    "TTTTTT": ([999], [999, 10, 11, 12, 13, 14, 15]),
    "FTFTFT": ([10, 999, 12, 998, 14, 997], [999, 11, 998, 13, 997, 15]),
}


@pytest.mark.parametrize("mask", CORRUPTED)
def test_every_span_has_a_sentinel_of_its_own(mask):
    ids = np.arange(10, 16)
    hidden = np.array([letter == "T" for letter in mask])
    assert tuple(part.tolist() for part in corrupt(ids, hidden, SENTINELS)) == CORRUPTED[mask]
    assert ids.tolist() == list(range(10, 16))  # never written to


def test_a_key_always_hides_the_same():
    """The same on every machine, for ever."""
    example = span_corruption(np.arange(100, 120), "doc", (1, 2, 3), Spans(), SENTINELS, 0, 1)
    assert example.source.tolist() == [*range(100, 117), 999, 1]
    assert example.tokens.tolist() == [0, 999, 117, 118, 119]
    assert example.labels.tolist() == [999, 117, 118, 119, 1]
    assert (example.full_length, example.truncated) == (24, False)
    assert example.tokens.dtype == example.labels.dtype == np.int32
    spans = Spans(0.3, 2)
    for key, mask in {(7, 0, 1): "FFFTFFFFFTFFFFFFTTTT", (7, 0, 2): "FFFFFFFFFTFFTTTFFFTT"}.items():
        assert "".join("FT"[int(hidden)] for hidden in span_mask(20, spans, key)) == mask


def test_density_over_many_masks():
    """0.15 +- 0.01 over 50 masks (t5 `preprocessors_test.py`), and spans of three tokens."""
    lengths = [100 + 17 * number for number in range(50)]
    masks = [span_mask(length, Spans(), (1, number)) for number, length in enumerate(lengths)]
    total = sum(lengths)
    assert abs(sum(int(mask.sum()) for mask in masks) / total - 0.15) < 0.01
    spans = sum(int((mask[1:] & ~mask[:-1]).sum()) for mask in masks)
    assert sum(int(mask.sum()) for mask in masks) / spans == pytest.approx(3.0, abs=0.05)
    assert not any(mask[0] for mask in masks)


def test_every_way_to_cut_is_equally_likely():
    """Of 5 = a + b + c there are six."""
    seen = [tuple(composition(5, 3, np.random.default_rng(seed).random(5)).tolist()) for seed in range(3000)]
    counts = [seen.count(way) for way in set(seen)]
    assert len(counts) == 6 and all(abs(count - 500) < 5 * (500 * 5 / 6) ** 0.5 for count in counts)


@given(
    length=st.integers(2, 300),
    density=st.floats(0.01, 0.9),
    mean=st.floats(1, 12),
    key=st.tuples(st.integers(0, 2**40), st.integers(0, 99)),
)
def test_source_and_target_hold_every_token_once(length, density, mean, key):
    ids, spans = np.arange(1000, 1000 + length), Spans(density, mean)
    example = span_corruption(ids, "d", key, spans, SENTINELS, 0, 1)
    assert (len(example.source), len(example.labels)) == spans.lengths(length)
    assert (example.tokens[0], example.source[-1], example.labels[-1]) == (0, 1, 1)
    assert example.tokens[1:].tolist() == example.labels[:-1].tolist()
    hidden, rest = {}, example.labels[:-1].tolist()
    for token in rest:
        if token < 1000:
            hidden[token] = []
        else:
            hidden[next(reversed(hidden))].append(token)
    rebuilt = [token for item in example.source[:-1].tolist() for token in hidden.get(item, [item])]
    assert rebuilt == ids.tolist()
    assert list(hidden) == list(range(999, 999 - len(hidden), -1)) and all(hidden.values())


@given(source=st.integers(4, 600), density=st.floats(0.05, 0.6), mean=st.floats(1, 9))
def test_no_piece_is_longer_than_the_model_reads(source, density, mean):
    spans = Spans(density, mean)
    raw = spans.raw_length(source)
    sizes = [spans.lengths(length) for length in range(2, raw + 1)]
    assert all(size[0] <= source and size[1] <= spans.lengths(raw)[1] for size in sizes)


@given(count=st.integers(0, 400), length=st.integers(3, 60))
def test_pieces_hold_every_token_once(count, length):
    found = pieces(np.arange(count), length)
    assert [token for _, piece in found for token in piece.tolist()] == list(range(count))
    assert all(offset == (piece[0] if len(piece) else 0) for offset, piece in found)
    assert all(2 <= len(piece) <= length for _, piece in found) or count < 2


# A corpus, seen through the data module ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Documents of one to 400 letters, in three splits."""
    directory = tmp_path_factory.mktemp("spans")
    draw = np.random.default_rng(1)
    for split, size in (("train", 40), ("validation", 9), ("test", 4)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                text = "".join(draw.choice(list("abcdefgh "), int(draw.choice([1, 5, 60, 400]))))
                stream.write(json.dumps({"id": f"{split}-{number}", "text": text}) + "\n")
    return directory


def make(texts, *, ranks=1, rank=0, stage="fit", **settings):
    settings = {"tokenizer": TokenizerConfig(kind="byte"), "max_source_length": 40, "seed": 5, **settings}
    data = SpanCorruptionData(str(texts), global_batch_size=8, lanes=4, **settings)
    data.setup(stage)
    data.plan(ranks, rank)
    return data


def rows_of(batches):
    """``{row number: (ids, source, labels)}``."""
    return {
        number: (
            batch["example_ids"][row],
            batch["source_tokens"][row][batch["source_segments"][row] > 0].tolist(),
            batch["labels"][row][batch["segments"][row] > 0].tolist(),
        )
        for batch in batches
        for row, number in enumerate(batch["row_ids"].tolist())
        if number >= 0
    }


def train_rows(data, count):
    return rows_of([batch for batch, _ in zip(data.train_dataloader(), range(count), strict=False)])


def rebuilt(data, source, labels):
    """The piece of a document that a row was made from."""
    sentinels, spans, name = set(data.sentinels.tolist()), {}, None
    assert (source[-1], labels[-1]) == (data.tokenizer.eos_id, data.tokenizer.eos_id)
    for token in labels[:-1]:
        if token in sentinels:
            name = token
            spans[name] = []
        else:
            spans[name].append(token)
    return [t for item in source[:-1] for t in spans.get(item, [item])]


def test_rows_are_pieces_of_the_documents_and_all_of_them_are_used(texts):
    data = make(texts)
    known = {row["id"]: data.tokenizer.encode(row["text"]) for row in data.split("train").scan(0)}
    met = {}
    for (name,), source, labels in train_rows(data, 80).values():
        document, _, offset = name.partition("@")
        piece = rebuilt(data, source, labels)
        assert known[document][int(offset or 0) :][: len(piece)] == piece
        met.setdefault(document, {})[int(offset or 0)] = len(piece)
    whole = {name: ids for name, ids in known.items() if len(ids) > 1}
    assert met.keys() == whole.keys()
    assert all(sum(met[name].values()) == len(ids) for name, ids in whole.items())
    counts = data.counts(80)
    assert counts["dropped"] > 0 and counts["split"] > 0 and counts["truncated"] == 0


def test_ranks_micro_batches_and_restores_change_nothing(texts):
    whole = train_rows(make(texts), 30)
    assert train_rows(make(texts, micro_batch_size=2), 120) == whole
    parts = [train_rows(make(texts, ranks=2, rank=rank), 30) for rank in (0, 1)]
    assert parts[0] | parts[1] == whole
    first = make(texts)
    batches = iter(first.train_dataloader())
    for _ in range(11):
        next(batches)
    again = make(texts)
    again.load_state_dict({"train": json.loads(json.dumps(first._stream.state(11)))})
    assert train_rows(again, 19) == {number: row for number, row in whole.items() if number >= 88}


def test_epochs_hide_other_spans_and_evaluation_the_same(texts):
    seen = {}
    for (name,), source, _ in train_rows(make(texts), 120).values():
        seen.setdefault(name, set()).add(tuple(source))
    assert sum(len(sources) > 1 for sources in seen.values()) > len(seen) / 2
    once = rows_of(make(texts, stage="validate").val_dataloader())
    data = make(texts, seed=99, stage="validate")
    assert rows_of(data.val_dataloader()) == rows_of(data.val_dataloader()) == once
    known = {row["id"]: data.tokenizer.encode(row["text"]) for row in data.split("validation").scan(0)}
    total = sum(len(rebuilt(data, source, labels)) for _, source, labels in once.values())
    assert total == sum(len(ids) for ids in known.values() if len(ids) > 1)


def test_the_tokenizer_has_the_sentinels_that_are_needed(texts, tmp_path):
    data = make(texts)
    assert len(data.sentinels) == data.needed == Spans().of(data.piece_length)[1]
    assert data.sentinels[0] == data.tokenizer.vocab_size - 1
    assert data.facts()["max_length"] == 40 and data.lengths == f"40+{data.longest[0]}"
    path = tmp_path / "tokenizer.json"
    Tokenizer.train(["a text"], TokenizerConfig(kind="byte", sentinels=1)).save(path)
    with pytest.raises(ConfigError, match=r"1 sentinels .* needs 2 .*: train one with data.tokenizer.sentinels"):
        make(texts, tokenizer=TokenizerConfig(path=str(path)))


def test_texts_to_fill_name_their_sentinels(texts, tmp_path):
    source = tmp_path / "fill.txt"
    source.write_text("a<extra_id_0>b c<extra_id_1>\n\nabc <extra_id_77>\n")
    data = make(texts, stage="validate")
    data.predict_path = str(source)
    (batch,) = data.predict_dataloader()
    a, b, space, c = (data.tokenizer.encode(letter)[0] for letter in "ab c")
    first, second = data.sentinels[:2].tolist()
    eos = data.tokenizer.eos_id
    assert batch["source_tokens"][0].tolist()[:7] == [a, first, b, space, c, second, eos]
    assert batch["source_tokens"][1].tolist()[:5] == [a, b, c, space, data.tokenizer.encode("<")[0]]  # no such sentinel
    assert batch["failed"] == {1: {"id": "input:1", "error": "the text is empty"}}
    assert batch["tokens"].tolist() == [[data.decoder_start_id] + [0] * 7] * 2
    data.predict_path = None
    assert [ids for batch in data.predict_dataloader() for (ids,) in batch["example_ids"]]


MISTAKES = [
    ({"noise_density": 15}, "data.noise_density must be between 0 and 1, not 15"),
    ({"mean_span_length": 0.5}, "data.mean_span_length must be at least 1, not 0.5"),
    ({"max_source_length": 3}, "data.max_source_length 3 is too short"),
    ({"tokenizer": TokenizerConfig(kind="byte", special_tokens=False)}, "no end token"),
    ({"decoder_start": "<go>"}, "data.decoder_start '<go>' is no token"),
]


@pytest.mark.parametrize(("settings", "message"), MISTAKES)
def test_mistakes(texts, settings, message):
    with pytest.raises(ConfigError, match=message):
        make(texts, **settings)
    with pytest.raises(ConfigError, match="a document may give several examples"):
        make(texts).steps_for_epochs(1, "trainer.max_epochs")
