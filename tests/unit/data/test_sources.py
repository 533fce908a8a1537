"""Rows come out of every format, folder and list as they went in, under their splits and ids."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from lightning_nlp.data.sources.files import fingerprint, split_of
from lightning_nlp.data.sources.source import SourceConfig, hash_split, open_splits

TEXTS = ["one\nline", "", "zwei ä", 'with, comma and "quotes"', "NA", "007", "tab\tinside", "null", "  spaces  "]
TEXT = {"text": "text"}


def write(path: Path, rows) -> str:
    """Write ``rows`` (dicts, or one string of plain text) in the format of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(rows, str):
        path.write_text(rows, encoding="utf-8")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def opened(path, fields=TEXT, **settings):
    return open_splits(SourceConfig(path=path, **{"validation_fraction": 0.0, **settings}), fields)


def texts(source):
    return [row["text"] for row in source.scan(0)]


PLAIN = "first line\nsecond line\n\nnew paragraph\n\n\nlast one"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("document", [PLAIN]),
        ("paragraph", ["first line\nsecond line", "new paragraph", "last one"]),
        ("line", ["first line", "second line", "", "new paragraph", "", "", "last one"]),
    ],
)
def test_plain_text(tmp_path, unit, expected, streaming):
    path = write(tmp_path / "a.txt", PLAIN)
    source = opened(path, text_unit=unit, streaming=streaming)["train"]
    found = texts(source)
    if unit == "paragraph":
        found = [text.strip("\n") for text in found if text.strip("\n")]
    assert found == expected
    assert source.num_rows is None if streaming else source.num_rows >= len(expected)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"])
def test_tables(tmp_path, ending, streaming):
    path = write(tmp_path / f"a.{ending}", [{"body": text, "n": str(n)} for n, text in enumerate(TEXTS)])
    source = opened(path, {"text": "body", "label": "n"}, streaming=streaming)["train"]
    found = list(source.scan(0))
    assert [row["text"] for row in found] == TEXTS
    assert [row["label"] for row in found] == [str(n) for n in range(len(TEXTS))]
    assert [row["id"] for row in found] == [f"train:{n}" for n in range(len(TEXTS))]
    assert list(source.scan(4)) == found[4:]
    if streaming:
        with pytest.raises(TypeError):
            source.read(np.array([0]))
    else:
        assert source.read(np.array([5, 0, 5])) == [found[5], found[0], found[5]]


def test_a_json_array(tmp_path):
    assert texts(opened(write(tmp_path / "a.json", json.dumps([{"text": "a"}, {"text": "b"}])))["train"]) == ["a", "b"]


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfhello")
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\nhello,x\n")
    for ending in ("txt", "csv"):
        assert texts(opened(str(tmp_path / f"a.{ending}"))["train"]) == ["hello"]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_id_column_is_used(tmp_path, streaming):
    path = write(
        tmp_path / "a.jsonl", [{"id": 7, "text": "a"}, {"id": None, "text": "b"}, {"id": "x", "text": "c"}][:2]
    )
    assert [row["id"] for row in opened(path, streaming=streaming)["train"].scan(0)] == ["7", "train:1"]


@pytest.mark.parametrize("how", ["folder", "glob", "list", "tilde", "slash"])
def test_folders_with_split_words(tmp_path, monkeypatch, how):
    root = tmp_path / "dev" / "corpus"  # a split word above the corpus means nothing
    for name in ("train-0", "train-1", "sub/more", "validation/part", "wiki_test", ".hidden/train", "test/TRAIN-odd"):
        write(root / f"{name}.jsonl", [{"text": name}])
    write(root / "info.json", '{"name": "not data"}')
    monkeypatch.setenv("HOME", str(tmp_path / "dev"))
    path = {
        "folder": str(root),
        "slash": f"{root}/",
        "tilde": "~/corpus",
        "glob": f"{root}/**/*.jsonl",
        "list": [f"{root}/*.jsonl", f"{root}/*/*.jsonl"],
    }[how]
    splits = opened(path)
    assert list(splits) == ["train", "validation", "test"]
    found = {split: sorted(texts(source)) for split, source in splits.items()}
    assert found == {
        "train": ["sub/more", "test/TRAIN-odd", "train-0", "train-1"],
        "validation": ["validation/part"],
        "test": ["wiki_test"],
    }


@pytest.mark.parametrize(
    ("file", "entry", "split"),
    [
        ("a/latest.txt", "a", "train"),
        ("a/test.txt", "a", "test"),
        ("a/x-val-00.txt", "a", "validation"),
        ("a/Dev.txt", "a", "validation"),
        ("a/trainer.txt", "a", "train"),
        ("a/test/x.txt", "a", "test"),
        ("a/test/x.txt", "a/test", "train"),
        ("a/test/x.txt", "a/test/x.txt", "train"),
        ("a/test/x.txt", "a/*/x.txt", "test"),
        ("a/test/x.txt", "a/test/*.txt", "train"),
        ("test/x.txt", "test/**/*.txt", "train"),
    ],
)
def test_split_words(tmp_path, monkeypatch, file, entry, split):
    monkeypatch.chdir(tmp_path)
    write(Path(file), "text")
    assert split_of(Path(file), entry) == split


def test_a_list_of_files_keeps_its_order(tmp_path):
    paths = [write(tmp_path / f"{name}.txt", name) for name in "cab"]
    assert texts(opened(paths)["train"]) == ["c", "a", "b"]


@pytest.mark.parametrize(
    "name",
    ["a[1].txt", "a*.txt", "with space.txt", "ünï%20.txt"],
)
def test_odd_file_names(tmp_path, name):
    for other in (tmp_path / "a1.txt", tmp_path / "abc.txt"):
        write(other, "another file")
    assert texts(opened(write(tmp_path / name, "odd"))["train"]) == ["odd"]


def test_a_single_file_is_training_data_whatever_its_name(tmp_path):
    assert list(opened(write(tmp_path / "test.txt", "text"))) == ["train"]


def test_empty_files_beside_filled_ones_do_no_harm(tmp_path):
    paths = [write(tmp_path / "a.jsonl", ""), write(tmp_path / "b.jsonl", [{"text": "b"}])]
    assert texts(opened(paths)["train"]) == ["b"]


@pytest.mark.parametrize("streaming", [False, True])
def test_held_out_rows_are_disjoint_complete_and_always_the_same(tmp_path, streaming):
    path = write(tmp_path / "a.jsonl", [{"text": str(n)} for n in range(400)])
    first, second = (opened(path, validation_fraction=0.2, streaming=streaming) for _ in range(2))
    train, held = texts(first["train"]), texts(first["validation"])
    assert sorted(map(int, train + held)) == list(range(400))
    assert 50 < len(held) < 110
    assert (texts(second["train"]), texts(second["validation"])) == (train, held)
    assert next(first["validation"].scan(0))["id"] == f"validation:{held[0]}"  # the number in the file
    more = write(tmp_path / "b.jsonl", [{"text": str(n)} for n in range(500)])
    assert texts(opened(more, validation_fraction=0.2)["validation"])[: len(held)] == held


@pytest.mark.parametrize("rows", [2, 3, 20, 1000])
@pytest.mark.parametrize("fraction", [0.001, 0.05, 0.5, 0.99])
def test_hash_split_leaves_no_part_empty(rows, fraction):
    parts = hash_split(rows, fraction)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(rows))
    assert all(len(part) for part in parts.values())


@pytest.mark.parametrize("streaming", [False, True])
def test_take(tmp_path, streaming):
    path = write(tmp_path / "train.jsonl", [{"text": str(n)} for n in range(50)])
    write(tmp_path / "test.jsonl", [{"text": str(n)} for n in range(5)])
    splits = opened(str(tmp_path), take=12, streaming=streaming)
    assert texts(splits["train"]) == [str(n) for n in range(12)]
    assert len(texts(splits["test"])) == 5
    held = opened(path, take=20, validation_fraction=0.3)
    assert sorted(int(text) for source in held.values() for text in texts(source)) == list(range(20))


def test_fingerprints_follow_the_content_and_not_the_place(tmp_path):
    path, copy = (write(tmp_path / name / "a.jsonl", [{"text": "a"}] * 9) for name in ("x", "y"))
    base = opened(path)["train"].fingerprint
    assert opened(copy)["train"].fingerprint == base
    assert len({base, *(opened(path, **more)["train"].fingerprint for more in ({"take": 3}, {"streaming": True}))}) == 3
    write(tmp_path / "x" / "a.jsonl", [{"text": "a"}] * 8 + [{"text": "b"}])
    assert opened(path)["train"].fingerprint != base
    groups = [{"train": [Path(copy)]}, {"test": [Path(copy)]}, {"train": [Path(copy), Path(path)]}]
    assert len({fingerprint(group) for group in groups}) == 3
