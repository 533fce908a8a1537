"""What `data inspect` counts, by hand: batches of every kind of label, documents of known bytes and words."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

import lightning_nlp
from lightning_nlp.cli.data_inspect import histogram, spread
from lightning_nlp.data.inspection import Batches, inspect, names_of, rows_of, sample
from lightning_nlp.data.masked_lm import MaskedLMData
from lightning_nlp.data.sequence_to_sequence import SequenceToSequenceData
from lightning_nlp.data.text_classification import TextClassificationData


def batch(labels, **further):
    """Two rows of four positions: two documents and a padding, one document and two paddings; a row of nothing."""
    segments = torch.tensor([[1, 1, 2, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    tokens = torch.arange(12).reshape(3, 4)
    ids = [["a", "b"], ["c"], []]
    return {"tokens": tokens, "segments": segments, "labels": torch.as_tensor(labels), "example_ids": ids, **further}


PER_TOKEN = [[5, -100, 6, -100], [-100, 7, -100, -100], [-100] * 4]
NAMES = ["no", "yes", "maybe"]


def test_batches_are_added_up():
    found = Batches()
    found.add(batch(PER_TOKEN), None)
    assert (found.rows, found.documents, found.tokens, found.positions, found.padding) == (2, 3, 5, 12, 7)
    assert (found.supervised, found.widths, found.labels) == (3, (4, 4), {})
    found.add(batch(PER_TOKEN, source_segments=torch.tensor([[1, 1], [1, 0], [0, 0]])), None)
    assert (found.count, found.positions, found.padding) == (2, 30, 17)


@pytest.mark.parametrize(
    ("labels", "counts", "shown"),
    [
        ([1, 0, -100], {"yes": 1, "no": 1}, ["yes", "no"]),
        ([2, 2, -100], {"maybe": 2}, ["maybe", "maybe"]),
        ([0.25, 3.0, 0.0], {}, ["0.25", "3"]),
        ([[1.0, 0, 1], [0, 0, 0], [0, 0, 0]], {"no": 1, "maybe": 1, "none": 1}, ["no, maybe", ""]),
    ],
)
def test_labels_of_rows_are_named(labels, counts, shown):
    found, made = Batches(), batch(labels)
    found.add(made, NAMES)
    assert found.labels == counts and found.supervised == 0
    assert found.numbers == ([0.25, 3.0] if not counts else [])
    rows = list(rows_of(made, NAMES))
    assert [row.label for row in rows] == shown and [row.labels for row in rows] == [None, None]


def test_a_class_without_a_name_is_a_number():
    assert names_of(torch.tensor(7), NAMES) == ["7"] and names_of(torch.tensor(1), None) == ["1"]


def test_rows_are_without_padding_and_with_further_fields():
    prefix = torch.tensor([[True, False, True, False]] * 3)
    source = {"source_tokens": torch.tensor([[8, 9], [9, 0], [0, 0]]), "source_segments": torch.tensor([[1, 1], [1, 0], [0, 0]])}  # fmt: skip
    first, second = rows_of(batch(PER_TOKEN, prefix_mask=prefix, **source), None)
    assert (first.tokens, first.labels, first.segments) == ([0, 1, 2], [5, -100, 6], [1, 1, 2])
    assert (first.ids, first.padding, first.extras, first.source) == (["a", "b"], 1, {"prefix_mask": [1, 0, 1]}, [8, 9])
    assert (second.tokens, second.labels, second.source, second.label) == ([4, 5], [-100, 7], [9], None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], []),
        ([3], [(3, 3, 1)]),
        ([1, 2, 2, 4], [(1, 1, 1), (2, 2, 2), (3, 3, 0), (4, 4, 1)]),
        ([10, 19, 20, 100], [(10, 19, 2), (20, 29, 1), *[(start, start + 9, 0) for start in range(30, 100, 10)], (100, 109, 1)]),
        ([1, 2, 3, 100], [(1, 1, 1), (2, 3, 2), (4, 7, 0), (8, 15, 0), (16, 31, 0), (32, 63, 0), (64, 127, 1)]),
    ],
)  # fmt: skip
def test_histograms(values, expected):
    assert [(bin["from"], bin["to"], bin["count"]) for bin in histogram(values)] == expected


@pytest.mark.parametrize("seed", range(5))
def test_histograms_count_everything(seed):
    values = np.random.default_rng(seed).lognormal(4, 0.3 + seed / 2, 500).astype(int).tolist()
    found = histogram(values)
    assert sum(bin["count"] for bin in found) == 500 and 1 < len(found) <= 25
    assert all(before["to"] + 1 == after["from"] for before, after in itertools.pairwise(found))


def test_spread_is_of_values_there_are():
    assert spread(list(range(1, 101))) == {"min": 1, "median": 50, "p95": 95, "max": 100, "mean": 50.5}
    assert spread([]) == {"min": 0, "median": 0, "p95": 0, "max": 0, "mean": 0}


class Rows:
    """A split in memory, which notes what was read."""

    def __init__(self, count):
        self.num_rows, self.seen = count, []

    def read(self, places):
        self.seen += places.tolist()
        return [{"id": str(place)} for place in places]


@pytest.mark.parametrize(("rows", "count"), [(10, 100), (100, 100), (1000, 70), (10**9, 50)])
def test_a_sample_has_no_row_twice(rows, count):
    source = Rows(rows)
    found = [row for chunk in sample(source, count) for row in chunk]
    assert len(found) == len(set(source.seen)) == min(rows, count) and max(source.seen) < rows
    if rows > 10 * count:
        assert max(source.seen) > rows // 2 and source.seen != sorted(source.seen)


@pytest.fixture
def corpus(tmp_path):
    rows = [{"text": "ab cd é", "label": "yes" if number % 4 else "no", "target": "x" * (number % 4)} for number in range(40)]  # fmt: skip
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "train.jsonl")


COMMON = {"global_batch_size": 4, "lanes": 2, "validation_fraction": 0.0}
BYTE = lightning_nlp.TokenizerConfig(kind="byte")


def test_documents_of_a_language_model(corpus):
    data = lightning_nlp.CausalLMData(corpus, tokenizer=BYTE, max_length=16, **COMMON)
    found = inspect(data, documents=1000, batches=3, rows=2)
    part = found.splits["train"]
    assert (part.rows, part.complete, part.bytes, part.words, part.tokens, part.unknown) == (40, True, 320, 120, 320, 0)
    assert part.lengths == [9] * 40 and part.sources == [] and len(part.used) == 7 and len(part.ids) == 5
    assert (found.batches.count, found.batches.steps, found.batches.rows) == (3, 3, 12)
    assert (found.batches.padding, found.batches.supervised) == (0, 12 * 16) and len(found.rows) == 2


def test_steps_are_optimizer_steps(corpus):
    data = lightning_nlp.CausalLMData(corpus, tokenizer=BYTE, max_length=16, micro_batch_size=2, **COMMON)
    found = inspect(data, documents=10, batches=5, rows=0)
    assert (found.batches.count, found.batches.steps, found.batches.rows, found.rows) == (5, 3, 10, [])


def test_documents_of_other_tasks(corpus):
    words = lightning_nlp.TokenizerConfig(kind="word", vocab_size=6)  # <pad> <bos> <eos> <unk> and two of ab, cd, é
    found = inspect(
        TextClassificationData(corpus, tokenizer=words, max_length=4, **COMMON), documents=40, batches=10, rows=1
    )
    part = found.splits["train"]
    assert (part.unknown, part.tokens, part.truncated, part.lengths) == (40, 120, 40, [4] * 40)
    assert sum(found.batches.labels.values()) == 40 and found.batches.labels["no"] == 10

    pairs = SequenceToSequenceData(corpus, source_column="text", tokenizer=BYTE, max_source_length=6, **COMMON)
    part = inspect(pairs, documents=40, batches=2, rows=1).splits["train"]
    assert (part.dropped, part.truncated, len(part.lengths)) == (10, 30, 30)  # without a target; a cut source
    assert set(part.sources) == {6} and sorted(set(part.lengths)) == [2, 3, 4]

    masked = inspect(
        MaskedLMData(corpus, tokenizer=BYTE, max_length=20, mask_prob=0.5, **COMMON), documents=40, batches=5, rows=1
    )
    assert 0.3 < masked.batches.supervised / masked.batches.tokens < 0.5  # half of eight, of ten
