"""Rows to answer: each once, in order, in the same batches on any number of ranks and after any restart."""

from __future__ import annotations

import gzip
import json

import pytest
from datasets import Dataset

from lightning_nlp.data.causal_lm import CausalLMData
from lightning_nlp.data.prediction import PredictionRows
from lightning_nlp.data.tokenizers.config import TokenizerConfig
from lightning_nlp.errors import ConfigError, DataError


@pytest.fixture
def data(tmp_path):
    (tmp_path / "train.txt").write_text("abc\ndef\n")
    made = CausalLMData(
        str(tmp_path / "train.txt"), text_unit="line", tokenizer=TokenizerConfig(kind="byte"), eval_batch_size=3
    )
    made.prepare_data()
    made.setup("predict")
    return made


def records(batches):
    """What is asked of each row, in order: its text, or why it has none."""
    found = []
    for batch in batches:
        texts = iter(batch["texts"])
        size = len(batch["failed"]) + sum(map(bool, batch["example_ids"]))
        found += [batch["failed"].get(place) or next(texts) for place in range(size)]
    return found


ROWS = [{"text": "one"}, {"text": ""}, {"text": "three"}, {"id": "x", "text": 4}, {"text": "five"}]


@pytest.fixture
def asked(data, tmp_path):
    lines = [json.dumps(row) for row in ROWS]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, "{broken", '{"text": "seven"}', '{"txt": "8"}']) + "\n")
    data.predict_path = str(tmp_path / "in.jsonl")
    return data


EXPECTED = [
    "one",
    {"id": "input:1", "error": "the text is empty"},
    "three",
    {"id": "x", "error": "column 'text' holds int, not text"},
    "five",
    {"id": "input:5", "error": "malformed JSON (Expecting property name enclosed in double quotes)"},
    "seven",
    {"id": "input:7", "error": "no column 'text' (columns: txt)"},
]


def test_every_row_is_an_answer_or_a_record_that_says_why_not(asked):
    batches = list(asked.predict_dataloader())
    assert records(batches) == EXPECTED
    assert [sum(map(bool, batch["example_ids"])) + len(batch["failed"]) for batch in batches] == [3, 3, 2]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("done", [0, 3, 6])
def test_ranks_take_whole_batches_in_turn_from_any_start(asked, ranks, done):
    asked.predicted, found = done, []
    for rank in range(ranks):
        asked.ranks, asked.rank = ranks, rank
        found.append([records([batch]) for batch in asked.predict_dataloader()])
    assert len(set(map(len, found))) == 1  # all ranks make equally many steps
    in_turn = [found[rank][step] for step in range(len(found[0])) for rank in range(ranks)]
    expected = [EXPECTED[start : start + 3] for start in range(done, len(EXPECTED), 3)]
    assert in_turn[: len(expected)] == expected and not any(in_turn[len(expected) :])


def test_the_policy_of_the_data_may_be_to_stop(asked):
    asked.source_config = asked.source_config.__class__(**{**vars(asked.source_config), "bad_rows": "error"})
    with pytest.raises(DataError, match=r"in.jsonl row 4: column 'text' holds int"):
        list(asked.predict_dataloader())


def test_long_texts_may_count_as_bad(asked, tmp_path):
    asked.source_config = asked.source_config.__class__(**{**vars(asked.source_config), "also_bad": ["long"]})
    asked.max_length = 5
    first = records(asked.predict_dataloader())[2]
    assert first == {"id": "input:2", "error": "row input:2 has 6 tokens, more than fit (5)"}


def test_filtered_rows_of_a_split_give_no_record():
    class Source:
        name, num_rows = "test", 6

        def scan(self, start):
            from lightning_nlp.data.sources.filters import LEFT_OUT

            rows = [{"id": str(n), "number": n, "text": "t"} for n in range(6)]
            rows[1]["bad"] = rows[2]["bad"] = LEFT_OUT
            return iter(rows[start:])

    def answers(done):
        rows = PredictionRows(Source(), lambda rows: [None] * len(rows), micro_batch=2, data_ranks=1, rank=0, done=done)
        return [record["id"] for asked in rows for record in asked.failed.values()]

    assert answers(0) == ["0", "3", "4", "5"] and answers(2) == ["4", "5"]


def write_gz(path):
    with gzip.open(path / "in.jsonl.gz", "wt") as stream:
        stream.write('{"text": "a"}\n{"text": "b"}\n')
    return path / "in.jsonl.gz"


def write_text_gz(path):
    with gzip.open(path / "in.txt.gz", "wt") as stream:
        stream.write("a\nb\n")
    return path / "in.txt.gz"


def write_csv(path):
    (path / "in.csv").write_text("id,text\n1,a\n2,b\n")
    return path / "in.csv"


def write_parquet(path):
    Dataset.from_dict({"text": ["a", "b"]}).to_parquet(path / "test.parquet")
    return path / "test.parquet"


def write_saved(path):
    Dataset.from_dict({"text": ["a", "b"]}).save_to_disk(path / "saved")
    return f"hf:{path / 'saved'}"


def write_folder(path):
    (path / "folder").mkdir()
    for name in "ab":
        (path / "folder" / f"{name}.txt").write_text(f"{name}\n")
    return path / "folder"


@pytest.mark.parametrize("write", [write_gz, write_text_gz, write_csv, write_parquet, write_saved, write_folder])
def test_any_form_the_data_may_have(data, tmp_path, write):
    data.predict_path = str(write(tmp_path))
    assert records(data.predict_dataloader()) == ["a", "b"]
    assert data.prediction_facts()["input"]


def test_the_facts_change_with_any_byte_of_the_input(data, tmp_path):
    path = tmp_path / "in.txt"
    path.write_text("a" * 300_000 + "b" + "c" * 300_000)
    data.predict_path = str(path)
    before = data.prediction_facts()["input"]
    path.write_text("a" * 300_000 + "x" + "c" * 300_000)
    assert data.prediction_facts()["input"] != before


@pytest.mark.parametrize(
    ("name", "message"), [("nothing.jsonl", "--input '.*nothing.jsonl' does not exist"), ("two", "holds the splits")]
)
def test_mistakes(data, tmp_path, name, message):
    (tmp_path / "two").mkdir()
    for split in ("train", "test"):
        (tmp_path / "two" / f"{split}.txt").write_text("a\n")
    data.predict_path = str(tmp_path / name)
    with pytest.raises(ConfigError, match=message):
        list(data.predict_dataloader())
