"""Pairs: the shift of the decoder's input, cuts, buckets by both lengths, rows to tensors, files to answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models

from lightning_nlp.data.collate import collate_pairs, with_texts
from lightning_nlp.data.encoder_decoder import start_id
from lightning_nlp.data.objectives import Example, sequence_to_sequence
from lightning_nlp.data.order.lanes import pack, single
from lightning_nlp.data.sequence_to_sequence import SequenceToSequenceData
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.errors import ConfigError, DataError

N = -100
# seqio's feature_converters_test.py (EncDecFeatureConverter): source, target, decoder input, decoder target; end 1,
# start 0, or 10 with bos_id. Its source and target already hold their end. What follows the end there is padding here.
SEQIO = [
    ([7, 8, 5], [3, 9], 0, [0, 3, 9], [3, 9, 1]),
    ([8, 4, 9, 3], [4], 0, [0, 4], [4, 1]),
    ([7, 8, 5, 6, 9, 4], [3, 9], 0, [0, 3, 9], [3, 9, 1]),
    ([7, 8, 5], [3, 9], 10, [10, 3, 9], [3, 9, 1]),
    ([8, 4, 9, 3], [4], 10, [10, 4], [4, 1]),
    ([9, 4, 3, 8], [3, 9, 4, 5], 0, [0, 3, 9, 4, 5], [3, 9, 4, 5, 1]),
]


@pytest.mark.parametrize(("source", "target", "start", "tokens", "labels"), SEQIO)
def test_decoder_input_is_the_target_moved_by_one(source, target, start, tokens, labels):
    example = sequence_to_sequence(source, target, "pair", 99, 99, start, 1)
    assert example.source.tolist() == [*source, 1]
    assert (example.tokens.tolist(), example.labels.tolist()) == (tokens, labels)
    assert example.tokens.dtype == example.labels.dtype == example.source.dtype == np.int32
    assert (example.full_length, example.truncated) == (len(source) + len(target) + 2, False)


def test_packed_decoder_input_starts_anew_in_every_segment():
    """The same file's test_encoder_decoder_packed, the decoder's side."""
    pairs = [sequence_to_sequence(*SEQIO[row][:2], f"{row}", 99, 99, 0, 1) for row in (0, 1)]
    row = pack([(pair, 0, len(pair.tokens)) for pair in pairs], 7)
    assert row.tokens.tolist() == [0, 3, 9, 0, 4, 0, 0]
    assert row.labels.tolist() == [3, 9, 1, 4, 1, N, N]
    assert row.segments.tolist() == [1, 1, 1, 2, 2, 0, 0]
    assert row.positions.tolist() == [0, 1, 2, 0, 1, 0, 0]


# Source and target of three tokens: limits, what is left of the source, of the decoder input, of the labels, cut tokens.
CUTS = [
    (4, 4, [5, 6, 7, 1], [0, 8, 9, 10], [8, 9, 10, 1], 0),
    (3, 4, [5, 6, 1], [0, 8, 9, 10], [8, 9, 10, 1], 1),  # a cut source still ends
    (1, 4, [1], [0, 8, 9, 10], [8, 9, 10, 1], 3),
    (4, 3, [5, 6, 7, 1], [0, 8, 9], [8, 9, 10], 1),  # a cut target does not: the text goes on
    (4, 1, [5, 6, 7, 1], [0], [8], 3),
    (2, 2, [5, 1], [0, 8], [8, 9], 4),
]


@pytest.mark.parametrize(("source_limit", "target_limit", "source", "tokens", "labels", "lost"), CUTS)
def test_cuts(source_limit, target_limit, source, tokens, labels, lost):
    example = sequence_to_sequence([5, 6, 7], [8, 9, 10], "pair", source_limit, target_limit, 0, 1)
    assert (example.source.tolist(), example.tokens.tolist(), example.labels.tolist()) == (source, tokens, labels)
    assert (example.full_length - sum(example.lengths), example.truncated) == (lost, lost > 0)


def test_without_an_end_token_and_without_a_text():
    example = sequence_to_sequence([5, 6], [8, 9], "pair", 9, 9, 0, None)
    assert (example.source.tolist(), example.tokens.tolist(), example.labels.tolist()) == ([5, 6], [0, 8], [8, 9])
    assert (
        sequence_to_sequence([], [8], "pair", 9, 9, 0, 1) is sequence_to_sequence([5], [], "pair", 9, 9, 0, 1) is None
    )


def test_rows_to_tensors():
    rows = [single(sequence_to_sequence(*SEQIO[number][:2], f"p{number}", 99, 99, 0, 1)) for number in (0, 1)]
    rows[1].place = 6
    batch = with_texts(collate_pairs(rows, 77, multiple=3), rows)
    assert batch["source_tokens"].tolist() == [[7, 8, 5, 1, 77, 77], [8, 4, 9, 3, 1, 77]]
    assert batch["source_segments"].tolist() == [[1] * 4 + [0] * 2, [1] * 5 + [0]]
    assert batch["source_positions"].tolist() == [[0, 1, 2, 3, 0, 0], [0, 1, 2, 3, 4, 0]]
    assert batch["tokens"].tolist() == [[0, 3, 9], [0, 4, 77]]
    assert batch["labels"].tolist() == [[3, 9, 1], [4, 1, N]]
    assert batch["segments"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["places"].tolist() == [-1, 6]
    assert collate_pairs(rows, 77)["source_tokens"].shape == (2, 8)


def test_a_rank_without_rows_gets_one_that_counts_for_nothing():
    batch = with_texts(collate_pairs([], 77), [])
    assert (batch["labels"] == N).all() and not batch["segments"].any() and not batch["source_segments"].any()
    assert (batch["source_tokens"] == 77).all() and batch["source_tokens"].shape == (1, 8)
    assert (batch["example_ids"], batch["places"].tolist()) == ([[]], [-1])


def test_examples_are_alike_in_the_longer_side_first():
    sizes = [(3, 9), (9, 3), (4, 4), (9, 9), (1, 4), (0, 9)]
    examples = [Example(np.zeros(t), 0, "", source=np.zeros(s) if s else None) for s, t in sizes]
    assert [sizes[place] for place in sorted(range(6), key=lambda place: examples[place].bulk)] == [
        (1, 4), (4, 4), (0, 9), (3, 9), (9, 3), (9, 9),
    ]  # fmt: skip


# A corpus, seen through the data module ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Letters and the same letters in capitals, of very different lengths, with an empty side here and there."""
    directory = tmp_path_factory.mktemp("pairs")
    draw = np.random.default_rng(2)
    for split, size in (("train", 300), ("validation", 41), ("test", 5)):
        with (directory / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                text = "".join(draw.choice(list("abcdef"), int(draw.integers(0, 40)))) if number % 10 else ""
                target = text.upper()[: int(draw.integers(1, 41))]
                stream.write(json.dumps({"id": f"{split}-{number}", "read": text, "write": target}) + "\n")
    return directory


def make(pairs, *, ranks=1, rank=0, stage="fit", **settings):
    settings = {"tokenizer": TokenizerConfig(kind="byte"), "max_source_length": 30, "max_target_length": 20, **settings}
    names = {"source_column": "read", "target_column": "write"}
    data = SequenceToSequenceData(str(pairs), **names, global_batch_size=16, seed=3, **settings)
    data.setup(stage)
    data.plan(ranks, rank)
    return data


def train_batches(data, count):
    return [batch for batch, _ in zip(data.train_dataloader(), range(count), strict=False)]


def spelled(data, ids):
    return data.tokenizer.decode([number for number in ids if number >= 0])


def test_batches_hold_the_pairs_of_the_file_and_little_padding(pairs):
    data = make(pairs)
    known = {row["id"]: row for row in data.split("train").scan(0)}
    sizes = []
    total = 0
    for batch in train_batches(data, 30):
        for row, (name,) in enumerate(batch["example_ids"]):
            source, target = (spelled(data, batch[part][row].tolist()) for part in ("source_tokens", "labels"))
            assert (source, target) == (known[name]["source"][:29], known[name]["target"][:20])
            start = batch["tokens"][row]
            inside = batch["segments"][row] > 0
            assert start[0] == data.tokenizer.bos_id
            assert start[inside][1:].tolist() == batch["labels"][row][inside][:-1].tolist()
        sizes += [[int(value) for value in batch[part].sum(1)] for part in ("segments", "source_segments")]
        total += batch["segments"].numel() + batch["source_segments"].numel()
    lengths = np.random.default_rng(0).permutation(np.array(sizes).reshape(30, 2, 16).transpose(0, 2, 1).reshape(-1, 2))
    unsorted = sum(16 * 8 * -(-group.max(0) // 8).sum() for group in lengths.reshape(30, 16, 2))
    assert total < 0.87 * unsorted
    counts = data.counts(data._stream.step)
    assert counts["dropped"] > 20 and counts["truncated"] > 50
    data._counts = counts
    assert "cut to 30+20 tokens" in data.summary() and "dropped (nothing to learn from)" in data.summary()


def test_ranks_and_restores_change_nothing(pairs):
    def rows_of(batches):
        return {
            number: (batch["source_tokens"][row][batch["source_segments"][row] > 0].tolist(), batch["example_ids"][row])
            for batch in batches
            for row, number in enumerate(batch["row_ids"].tolist())
        }

    data = make(pairs)
    whole = rows_of(train_batches(data, 24))
    assert rows_of(train_batches(make(pairs, micro_batch_size=2), 24 * 8)) == whole
    parts = [rows_of(train_batches(make(pairs, ranks=2, rank=rank), 24)) for rank in (0, 1)]
    assert parts[0] | parts[1] == whole
    stopped = make(pairs)
    batches = iter(stopped.train_dataloader())
    for _ in range(7):
        next(batches)
    again = make(pairs)
    again.load_state_dict({"train": json.loads(json.dumps(stopped._stream.state(7)))})
    assert rows_of(train_batches(again, 17)) == {number: row for number, row in whole.items() if number >= 7 * 16}
    changed = make(pairs, max_target_length=21)
    changed.load_state_dict({"train": stopped._stream.state(7)})
    with pytest.raises(ConfigError, match=r"length 30\+20 -> 30\+21"):
        changed.train_dataloader()


def test_evaluated_rows_know_their_place_in_the_split(pairs):
    """Which rows are decoded must not depend on ranks, nor on lengths."""
    for ranks in (1, 2):
        places = {}
        for rank in range(ranks):
            for batch in make(pairs, ranks=ranks, rank=rank, eval_batch_size=3).val_dataloader():
                places |= {
                    ids[0]: place
                    for ids, place in zip(batch["example_ids"], batch["places"].tolist(), strict=True)
                    if ids
                }
        assert len(places) > 30
        assert all(name == f"validation-{place}" for name, place in places.items())


FILES = {
    "in.txt": ("abc\n\nfed\n", ["abc", "fed"], [None, None], 1),
    "in.jsonl": ('{"read": "abc"}\n{"read": "fed", "write": "FED"}\n', ["abc", "fed"], [None, "FED"], 0),
    "in.csv": ("write,read\nABC,abc\n,fed\n", ["abc", "fed"], ["ABC", ""], 0),
    "in.tsv": ("id\tread\nx\tabc\n", ["abc"], [None], 0),
}


@pytest.mark.parametrize("name", FILES)
def test_files_to_answer_need_no_targets(pairs, tmp_path, name):
    content, sources, targets, empty = FILES[name]
    (tmp_path / name).write_text(content)
    data = make(pairs, stage="validate")
    data.predict_path = str(tmp_path / name)
    (batch,) = data.predict_dataloader()
    assert (batch["texts"], batch["references"], len(batch["failed"])) == (sources, targets, empty)
    assert [spelled(data, row) for row in batch["source_tokens"].tolist()] == sources
    assert batch["tokens"][:, 0].tolist() == [data.tokenizer.bos_id] * len(sources)
    assert (batch["labels"] == N).all() and batch["cut"] == [0] * len(sources)


def test_a_source_too_long_to_answer_in_full_says_so(pairs, tmp_path):
    (tmp_path / "in.txt").write_text("a" * 40 + "\n" + "b" * 29 + "\n")
    data = make(pairs, stage="validate")
    data.predict_path = str(tmp_path / "in.txt")
    (batch,) = data.predict_dataloader()
    assert batch["cut"] == [11, 0]


def test_a_file_to_answer_without_sources(pairs, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"reed": "abc"}\n')
    data = make(pairs, stage="validate")
    data.predict_path = str(tmp_path / "in.jsonl")
    with pytest.raises(ConfigError, match=r"data.source_column 'read' is not in the input data; did you mean 'reed'"):
        list(data.predict_dataloader())
    (tmp_path / "in.jsonl").write_text('{"read": 17}\n')
    (batch,) = data.predict_dataloader()
    assert batch["failed"] == {0: {"id": "input:0", "error": "column 'read' holds int, not text"}}
    strict = make(pairs, stage="validate", bad_rows="error")
    strict.predict_path = str(tmp_path / "in.jsonl")
    with pytest.raises(DataError, match=r"in.jsonl row 1: column 'read' holds int, not text"):
        list(strict.predict_dataloader())


def tokenizer(*names):
    return Tokenizer(Backend(models.WordLevel({name: number for number, name in enumerate([*names, "a"])})))


@pytest.mark.parametrize(
    ("names", "asked", "expected"),
    [
        (("<pad>", "<bos>", "<eos>"), None, 1),
        (("<pad>", "</s>"), None, 0),  # T5, Marian: from the padding
        (("<s>", "<pad>", "</s>"), None, 0),  # BART's tokenizer has a start token ...
        (("<s>", "<pad>", "</s>"), "</s>", 2),  # ... and its decoder starts from the end token
    ],
)
def test_what_a_target_starts_with(names, asked, expected):
    assert start_id(tokenizer(*names), asked) == expected


def test_mistakes(pairs):
    with pytest.raises(ConfigError, match=r"neither a start token nor padding: give data.decoder_start"):
        start_id(tokenizer("</s>"), None)
    with pytest.raises(ConfigError, match=r"data.decoder_start '<go>' is no token of the tokenizer"):
        make(pairs, decoder_start="<go>")
    with pytest.raises(ConfigError, match=r"no end token"):
        make(pairs, tokenizer=TokenizerConfig(kind="byte", special_tokens=False))
    with pytest.raises(ConfigError, match=r"data.max_target_length must be at least 1, not 0"):
        make(pairs, max_target_length=0)
