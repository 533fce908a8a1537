"""Every mistake in the data is one line that names the file and the row, or the setting that would be right."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet
import pytest

from lightning_nlp.data.sources.source import SourceConfig, open_splits
from lightning_nlp.errors import ConfigError, DataError

GOOD = '{"text": "good", "label": "a"}\n'
BOTH = {"text": "text", "label": "label"}


def parquet(rows):
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


def read_all(path, fields, **settings):
    settings = {"validation_fraction": 0.0, **settings}
    for source in open_splits(SourceConfig(path=path, **settings), fields).values():
        for _ in source.scan(0):
            pass


# name: (files, path below the folder, fields, settings, kind of error, text); DIR is the folder
CASES = {
    "missing file, nearest name": (
        {"corpus.txt": "x"}, "corpsu.txt", {}, ConfigError, "'DIR/corpsu.txt' does not exist; did you mean 'corpus.txt'?",
    ),
    "missing file, nothing near": ({"a.txt": "x"}, "quite/else", {}, ConfigError, "for the Hugging Face Hub write hf:NAME"),
    "empty folder": ({"data/.keep": ""}, "data", {}, ConfigError, "'DIR/data' holds no data files"),
    "no files of that format": ({"a.txt": "x"}, "", {"format": "csv"}, ConfigError, "'DIR' holds no csv files"),
    "empty glob": ({"a.txt": "x"}, "*.csv", {}, ConfigError, "'DIR/*.csv' matches no files"),
    "empty file": ({"a.jsonl": ""}, "a.jsonl", {}, DataError, "the train data has no rows: DIR/a.jsonl is empty"),
    "blank file": ({"a.jsonl": "\n\n"}, "a.jsonl", {}, DataError, "the train data has no rows: DIR/a.jsonl holds none"),
    "only a heading": ({"a.csv": "text,label\n"}, "a.csv", {}, DataError, "the train data has no rows"),
    "mixed formats": (
        {"a.csv": "text\nx\n", "b.jsonl": GOOD}, "", {}, ConfigError, "holds csv and jsonl files: set data.format",
    ),
    "wrong column, nearest": (
        {"a.jsonl": '{"texts": "x", "label": "a"}\n'}, "a.jsonl", {}, ConfigError,
        "data.text_column 'text' is not in the train data; did you mean 'texts'?",
    ),
    "wrong column, all named": (
        {"a.csv": "body,label\nx,a\n"}, "a.csv", {}, ConfigError,
        "data.text_column 'text' is not in the train data (columns: body, label)",
    ),
    "null text": (
        {"a.jsonl": GOOD + '{"text": null, "label": "a"}\n'}, "a.jsonl", {}, DataError,
        "DIR/a.jsonl row 2: column 'text' is empty",
    ),
    "missing column after blank lines and another file": (
        {"a.jsonl": GOOD, "b.jsonl": GOOD + "\n\n" + '{"label": "a"}\n'}, "", {}, DataError,
        "DIR/b.jsonl row 4: no column 'text' (columns: label)",
    ),
    "null text in a held-out row": (
        {"a.jsonl": 10 * GOOD + '{"text": null, "label": "a"}\n' + GOOD}, "a.jsonl", {"validation_fraction": 0.5},
        DataError, "DIR/a.jsonl row 11: column 'text' is empty",
    ),
    "empty label in a table": (
        {"a.csv": "text,label\nx,a\ny,\n"}, "a.csv", {}, DataError, "DIR/a.csv row 3: column 'label' is empty",
    ),
    "null text in parquet": (
        {"a.parquet": parquet([{"text": "x", "label": 1}, {"text": None, "label": 1}])}, "a.parquet", {}, DataError,
        "DIR/a.parquet row 2: column 'text' is empty",
    ),
    "number for text": (
        {"a.jsonl": '{"text": 5, "label": "a"}\n'}, "a.jsonl", {}, DataError,
        "DIR/a.jsonl row 1: column 'text' holds int, not text",
    ),
    "number among texts": ({"a.jsonl": GOOD + '{"text": 5, "label": "a"}\n'}, "a.jsonl", {}, DataError, "DIR/a.jsonl row 2"),
    "list for text": (
        {"a.jsonl": '{"text": ["x"], "label": "a"}\n'}, "a.jsonl", {}, DataError,
        "DIR/a.jsonl row 1: column 'text' holds list, not text",
    ),
    "malformed JSON": (
        {"a.jsonl": GOOD + GOOD + '{"text": oops}\n' + GOOD}, "a.jsonl", {}, DataError, "DIR/a.jsonl row 3: malformed JSON",
    ),
    "malformed JSON in the second file": (
        {"a.jsonl": GOOD, "b.jsonl": GOOD + "{oops\n"}, "", {}, DataError, "DIR/b.jsonl row 2: malformed JSON",
    ),
    "truncated last line": (
        {"a.jsonl": GOOD + GOOD + GOOD[:12]}, "a.jsonl", {}, DataError, "DIR/a.jsonl row 3: malformed JSON",
    ),
    "no JSON object": ({"a.jsonl": GOOD + "5\n"}, "a.jsonl", {}, DataError, "DIR/a.jsonl row 2: not a JSON object"),
    "invalid UTF-8 in text": (
        {"a.txt": b"fine\nwrong \xff here"}, "a.txt", {}, DataError, "DIR/a.txt row 2: not UTF-8 (byte 7 of the line)",
    ),
    "invalid UTF-8 in JSON": (
        {"a.jsonl": (9000 * GOOD).encode() + b'{"text": "\xc3"}\n'}, "a.jsonl", {}, DataError,
        "DIR/a.jsonl row 9001: not UTF-8 (byte 11 of the line)",
    ),
    "invalid UTF-8 in a table": (
        {"a.csv": b"text,label\nx,a\n\xe4,b\n"}, "a.csv", {}, DataError, "DIR/a.csv row 3: not UTF-8 (byte 1",
    ),
    "too many cells": (
        {"a.csv": "text,label\nx,a\ny,b,c\n"}, "a.csv", {}, DataError, "DIR/a.csv row 3: 3 cells instead of 2",
    ),
    "too many cells, tsv": (
        {"a.tsv": "text\tlabel\nx\ta\ny\tb\tc\n"}, "a.tsv", {}, DataError, "DIR/a.tsv row 3: 3 cells instead of 2",
    ),
    "quote never closed": ({"a.csv": 'text,label\n"x,a\ny,b\n'}, "a.csv", {}, DataError, "DIR/a.csv"),
    "truncated parquet": (
        {"a.parquet": parquet([{"text": "x" * 500, "label": 1}])[:-40]}, "a.parquet", {}, DataError, "DIR/a.parquet: ",
    ),
    "thousands of brackets in an array": (
        {"a.json": "[" * 100_000}, "a.json", {}, DataError, "DIR/a.json: malformed JSON (maximum recursion depth",
    ),
    "thousands of digits in an array": (
        {"a.json": '[{"text": "x", "n": ' + "9" * 5000 + "}]"}, "a.json", {}, DataError,
        "DIR/a.json: malformed JSON (Exceeds the limit",
    ),
    "lines that end with a carriage return": (
        {"a.csv": "text,label\rx,a\ry,b\r"}, "a.csv", {}, DataError, "DIR/a.csv: its lines end with a carriage return alone",
    ),
    "quoted lines that end with a carriage return": (
        {"a.csv": 'text,label\nx,a\n"y","b"\r"z","c"\n'}, "a.csv", {}, DataError,
        "DIR/a.csv row 3: malformed table (a line ends with a carriage return alone)",
    ),
    "a heading that says the same twice": (
        {"a.csv": "text,text,label\nx,y,a\n"}, "a.csv", {}, ConfigError, "data.text_column 'text' is 2 columns of the train data",
    ),
    "no heading": (
        {"a.tsv": "so good\t1\nso bad\t0\n"}, "a.tsv", {}, ConfigError,
        "(columns: so good, 1); without a heading, name them: --data.reading.column_names '[text, label]'",
    ),
    "a long line for a heading": (
        {"a.tsv": "word " * 1000 + "\t1\nx\t0\n"}, "a.tsv", {}, ConfigError, "word word ..., 1)",
    ),
    "nothing compressed": ({"a.txt.gz": b"plain text"}, "a.txt.gz", {}, DataError, "DIR/a.txt.gz: "),
    "nothing compressed, tolerated": (
        {"a.jsonl.gz": b"plain text"}, "a.jsonl.gz", {"bad_rows": "skip", "streaming": False}, DataError, "DIR/a.jsonl.gz: ",
    ),
    "only damaged parquet, tolerated": (
        {"a.parquet": b"no parquet", "b.parquet": b"none"}, "", {"bad_rows": "skip"}, DataError, "DIR/a.parquet: ",
    ),
    "an empty file beside one that is not": (
        {"a.en": "one\n", "a.de": "eins\n", "b.en": "", "b.de": "zwei\n"}, "", {"pair": ["en", "de"]}, DataError,
        "DIR/b.en has 0 lines and DIR/b.de has 1: they are not aligned",
    ),
    "no parquet at all": ({"a.parquet": b"hello world, this is text"}, "a.parquet", {}, DataError, "DIR/a.parquet: "),
}  # fmt: skip


LATER = {"blank file", "only a heading"}
"""A stream without rows is refused by its reader: see test_order and test_eval_rows."""
ALL = [(case, False) for case in CASES] + [(case, True) for case in CASES if case not in LATER]


@pytest.mark.parametrize(("case", "streaming"), ALL)
def test_bad_input(tmp_path, case, streaming):
    files, path, settings, kind, text = CASES[case]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    fields = {"text": "text"} if path.endswith((".txt", ".txt.gz")) else BOTH
    if "pair" in settings:
        fields = {"source": "source", "target": "target"}
    with pytest.raises((ConfigError, DataError)) as caught:
        read_all(str(tmp_path / path), fields, **{"streaming": streaming, **settings})
    message = str(caught.value)
    assert type(caught.value) is kind, message
    assert text.replace("DIR", str(tmp_path)) in message
    assert "\n" not in message
    assert len(message.replace(str(tmp_path), "")) < 200


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("sample:stdlib_doc", "unknown sample 'stdlib_doc'; did you mean 'stdlib_docs'? (known: stdlib_docs, "),
        ("sample:", "unknown sample ''"),
        ([], "data.path is empty: give a file, a folder, a glob, hf:NAME or sample:NAME"),
        ("hf:/nowhere/at/all", "'hf:/nowhere/at/all' cannot be opened: "),
    ],
)
def test_bad_path(path, text):
    with pytest.raises(ConfigError, match=re.escape(text)) as caught:
        read_all(path, BOTH)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"validation_fraction": 1.0}, "data.validation_fraction must be in [0, 1), not 1.0"),
        ({"validation_fraction": -0.1}, "not -0.1"),
        ({"take": 0}, "data.take must be at least 1, not 0"),
    ],
)
def test_bad_setting(settings, text):
    with pytest.raises(ConfigError, match=re.escape(text)):
        SourceConfig(path="a.txt", **settings)


def test_one_row_cannot_be_split(tmp_path):
    (tmp_path / "a.txt").write_text("all of it\n\nin one document")
    with pytest.raises(ConfigError, match=r"one single row, and none is left for validation: set data\.text_unit to"):
        read_all(str(tmp_path / "a.txt"), {"text": "text"}, validation_fraction=0.05)
