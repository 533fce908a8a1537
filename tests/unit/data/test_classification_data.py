"""Pairs, several labels and numbers: by hand, cut fairly, and in batches of the right shape."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_nlp.data.builders import number_chat, number_facts
from lightning_nlp.data.builders.numbers import german
from lightning_nlp.data.labels import natural
from lightning_nlp.data.objectives import pair_classification
from lightning_nlp.data.text_classification import TextClassificationData
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.errors import ConfigError, DataError

# first, second, room, start token -> tokens and types; the longer text is cut, and then both to half.
PAIRS = {
    "room enough": ([5, 6], [7], 9, 1, [1, 5, 6, 2, 7, 2], [0, 0, 0, 0, 1, 1]),
    "no start token": ([5, 6], [7], 9, None, [5, 6, 2, 7, 2], [0, 0, 0, 1, 1]),
    "the first is cut": ([5, 6, 7, 8], [9], 6, 1, [1, 5, 6, 2, 9, 2], [0, 0, 0, 0, 1, 1]),
    "the second is cut": ([5], [7, 8, 9, 10], 6, 1, [1, 5, 2, 7, 8, 2], [0, 0, 0, 1, 1, 1]),
    "both are cut": ([5, 5, 5, 5], [7, 7, 7, 7], 7, 1, [1, 5, 5, 2, 7, 7, 2], [0, 0, 0, 0, 1, 1, 1]),
}


@pytest.mark.parametrize("case", PAIRS)
def test_pairs_by_hand(case):
    first, second, room, bos, tokens, types = PAIRS[case]
    example = pair_classification(first, second, 3, "d", room, bos, 2)
    assert (example.tokens.tolist(), example.extras["token_types"].tolist(), example.labels) == (tokens, types, 3)
    full = len(first) + len(second) + 2 + (bos is not None)
    assert (example.full_length, example.truncated) == (full, len(tokens) < full)


@given(first=st.integers(1, 40), second=st.integers(1, 40), room=st.integers(5, 60), bos=st.sampled_from([None, 1]))
def test_no_pair_is_longer_than_there_is_room(first, second, room, bos):
    example = pair_classification([5] * first, [7] * second, 0, "d", room, bos, 2)
    tokens = example.tokens.tolist()
    assert len(tokens) == min(first + second + 2 + (bos is not None), room)
    assert tokens.count(2) == 2 and tokens[-1] == 2 and 1 <= tokens.count(5) <= first and 1 <= tokens.count(7) <= second


@pytest.mark.parametrize("pair", [([], [5]), ([5], [])])
def test_an_empty_text_gives_nothing(pair):
    assert pair_classification(*pair, 0, "d", 9, 1, 2) is None


def test_numbers_stand_in_their_order():
    assert sorted(["10", "b", "9", "a", "-1"], key=natural) == ["-1", "9", "10", "a", "b"]


# Corpora, seen through the data module ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    directory = tmp_path_factory.mktemp("facts")
    rows = [row for _, row in number_facts.rows()][:400]
    for split, part in (("train", rows[:300]), ("validation", rows[300:])):
        (directory / f"{split}.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part))
    return directory


def make(path, *, stage="fit", ranks=1, rank=0, **settings):
    settings = {"tokenizer": TokenizerConfig(kind="byte"), "max_length": 64, "seed": 5, **settings}
    data = TextClassificationData(str(path), global_batch_size=8, **settings)
    data.setup(stage)
    data.plan(ranks, rank)
    return data


def rows_of(batches):
    for batch in batches:
        for row, (name,) in enumerate(batch["example_ids"]):
            yield name, batch["tokens"][row][batch["segments"][row] > 0].tolist(), batch["labels"][row], row, batch


def train(data, count):
    return [batch for batch, _ in zip(data.train_dataloader(), range(count), strict=False)]


def known(data):
    return {row["id"]: row for row in data.split("train").scan(0)}


def test_a_pair_is_two_texts_with_an_end_each(facts):
    data = make(facts, text_pair_column="text_pair")
    rows, (bos, eos) = known(data), (data.tokenizer.bos_id, data.tokenizer.eos_id)
    for name, tokens, label, row, batch in rows_of(train(data, 30)):
        one, two = (data.tokenizer.encode(rows[name][field]) for field in ("text", "text_pair"))
        types = batch["token_types"][row].tolist()
        if len(one) + len(two) + 3 <= 64:
            assert tokens == [bos, *one, eos, *two, eos]
            assert types == [0] * (len(one) + 2) + [1] * (len(two) + 1) + [0] * (len(types) - len(tokens))
        assert len(tokens) <= 64 and data.labels[int(label)] == rows[name]["label"]
        assert batch["labels"].dtype == torch.int64
    assert data.counts(30)["truncated"] > 0
    data.predict_path = str(facts / "validation.jsonl")
    batches = list(data.predict_dataloader())
    assert sum(len(batch["texts"]) for batch in batches) == 100 and all("token_types" in batch for batch in batches)


def test_several_labels_are_zeros_and_ones(facts):
    data = make(facts, label_column="properties", problem="multi_label")
    assert data.labels == sorted(number_facts.PROPERTIES) and data.facts()["problem"] == "multi_label"
    rows, seen = known(data), set()
    for name, _, label, _, batch in rows_of(train(data, 30)):
        assert batch["labels"].dtype == torch.float32 and batch["labels"].shape == (8, 4)
        found = {data.labels[place] for place in label.nonzero().flatten().tolist()}
        assert found == set(rows[name]["label"]) and set(label.tolist()) <= {0.0, 1.0}
        seen.add(len(found))
    assert seen == {0, 1, 2, 3, 4} or seen == {0, 1, 2, 3}
    assert [batch["labels"].isnan().all() for batch in [data.collate([])]] == [True]
    assert data.collate([])["labels"].shape == (1, 4)


@pytest.mark.parametrize(
    ("cells", "separator", "names"),
    [
        (["a,b", "b", "c, a "], ",", [{"a", "b"}, {"b"}, {"a", "c"}]),
        (["a|b c", "|", "c"], "|", [{"a", "b c"}, set(), {"c"}]),
        ([["a", "b"], [], ["c"]], ",", [{"a", "b"}, set(), {"c"}]),
        ([[1, 10], [2], [2, 10]], ",", [{"1", "10"}, {"2"}, {"2", "10"}]),
        ([3, 4, 3], ",", [{"3"}, {"4"}, {"3"}]),
    ],
)
def test_several_labels_in_lists_or_texts(tmp_path, cells, separator, names):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"t{n}", "label": cell}) + "\n" for n, cell in enumerate(cells)))
    data = make(path, problem="multi_label", label_separator=separator, validation_fraction=0.0, lanes=1)
    assert data.labels == sorted(set().union(*names), key=natural)
    for name, _, label, _, _ in rows_of(train(data, 3)):
        assert {data.labels[place] for place in label.nonzero().flatten().tolist()} == names[
            int(name.partition(":")[2])
        ]


def test_numbers_are_learnt_as_they_are(facts):
    data = make(facts, label_column="size", problem="regression")
    assert data.labels is None and data.facts()["labels"] is None
    rows = known(data)
    for name, _, label, _, batch in rows_of(train(data, 20)):
        assert batch["labels"].dtype == torch.float32 and float(label) == np.float32(rows[name]["label"])
    assert data.collate([])["labels"].isnan().tolist() == [True]
    data.predict_path = str(facts / "validation.jsonl")
    assert next(iter(data.predict_dataloader()))["labels"].tolist() == [0.0] * 8


def test_one_class_is_what_it_was(facts):
    data = make(facts)
    assert data.labels == ["different", "same"] and "token_types" not in data.collate([])
    assert data.collate([])["labels"].tolist() == [-100] and data.collate([])["labels"].dtype == torch.int64


BAD = [
    ("regression", "tall", "row 2: label 'tall' is no number"),
    ("regression", True, None),
    ("regression", math.inf, "row 2: label 'inf' is no finite number"),
    ("regression", 1e300, "row 2: label .1e.300. is no finite number"),
    ("regression", 10**400, "row 2: label .10000"),
    ("regression", "", "row 2: column 'label' is empty"),
    ("multi_label", "b,d", r"row 2: label 'd', never seen in training \(known: a, b\)"),
    ("single", "d", r"row 2: label 'd', never seen in training \(known: a, b\)"),
]


@pytest.mark.parametrize(("problem", "value", "message"), BAD)
def test_bad_labels_are_named(tmp_path, problem, value, message):
    path = tmp_path / "rows.jsonl"
    good = 1.5 if problem == "regression" else "a"
    path.write_text("".join(json.dumps({"text": "t", "label": label}) + "\n" for label in (good, value)))
    settings = {} if problem == "regression" else {"labels": ["a", "b"]}
    data = make(path, problem=problem, validation_fraction=0.0, lanes=1, **settings)
    if message is None:
        assert {float(label) for _, _, label, _, _ in rows_of(train(data, 2))} == {1.0, 1.5}
    else:
        with pytest.raises(DataError, match=message):
            train(data, 2)


def test_mistakes(facts, tmp_path):
    for settings, message in [
        ({"problem": "regression", "labels": ["a", "b"]}, "data.problem regression has none"),
        ({"label_separator": ""}, "data.label_separator is empty"),
        (
            {"text_pair_column": "text_pear"},
            "data.text_pair_column 'text_pear' is not in the train data; did you mean 'text_pair'",
        ),
        (
            {"text_pair_column": "text_pair", "max_length": 4},
            r"data.max_length must be at least 5 for two texts, not 4",
        ),
        (
            {"text_pair_column": "text_pair", "tokenizer": TokenizerConfig(kind="byte", special_tokens=False)},
            "no end token",
        ),
    ]:
        with pytest.raises(ConfigError, match=message):
            make(facts, **settings)
    data = make(facts, text_pair_column="text_pair")
    (tmp_path / "in.txt").write_text("a\n")
    data.predict_path = str(tmp_path / "in.txt")
    with pytest.raises(ConfigError, match="is plain text, the columns text, text_pair are needed"):
        data.predict_dataloader()


# The samples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("builder", [number_facts, number_chat])
def test_samples_are_the_same_every_time(builder, tmp_path):
    about = builder.build(tmp_path / "one")
    assert builder.build(tmp_path / "two") == about
    for split, count in about["rows"].items():
        content = (tmp_path / "one" / f"{split}.jsonl").read_bytes()
        assert content == (tmp_path / "two" / f"{split}.jsonl").read_bytes() and content.count(b"\n") == count > 150


def test_what_the_samples_say_is_true():
    by_words = {german(value): value for value in range(1000)}
    for number in range(300):
        turns = number_chat.conversation(number)
        assert [turn["role"] for turn in turns] == ["user", "assistant"] * (len(turns) // 2)
        values = [by_words[turn["content"]] for turn in turns[1::2]]
        steps = [number_chat.FOLLOWING[turn["content"]] for turn in turns[2::2]]
        assert [after - before for before, after in pairwise(values)] == steps
    rows = [row for _, row in number_facts.rows()]
    assert 0.45 < sum(row["label"] == "same" for row in rows) / len(rows) < 0.55
    for row in rows[:500]:
        value = round(10 ** row["size"] - 1) if row["size"] < 3 else None
        if value is not None:
            assert ("even" in row["properties"]) == (value % 2 == 0) and "thousands" not in row["properties"]
            assert (german(value) == row["text_pair"]) == (row["label"] == "same")
