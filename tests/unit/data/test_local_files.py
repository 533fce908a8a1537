"""Every way rows can lie in files: compressed, in columns, in two files, with and without a heading."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nlp.data.sources import reading, text_files
from lightning_nlp.data.sources.filters import Filter
from lightning_nlp.data.sources.parsing import parse_cells
from lightning_nlp.data.sources.reading import ReadingConfig
from lightning_nlp.data.sources.records import filled_lines, lines, paragraphs, table
from lightning_nlp.data.sources.source import SourceConfig, open_splits
from lightning_nlp.data.sources.splitting import hash_split
from lightning_nlp.errors import ConfigError, DataError

TEXT = {"text": "text"}
PAIR = {"source": "source", "target": "target"}
WORDS = ["one", "zwei ä", "", "four, with comma", "five"]
JSONL = "".join(json.dumps({"text": word}, ensure_ascii=False) + "\n" for word in WORDS).encode()
CSV = "text,n\r\n" + "".join(f'"{word}",{number}\r\n' for number, word in enumerate(WORDS))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Derived files lie where the test looks for them."""
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / ".cache"


def opened(path, fields=TEXT, **more):
    return open_splits(SourceConfig(path=str(path), **{"validation_fraction": 0.0, **more}), fields)


def texts(source, field="text"):
    return [row[field] for row in source.scan(0)]


def zstd(content):
    return pa.compress(content, codec="zstd", asbytes=True)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".zst", zstd)])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", JSONL), ("a.csv", CSV.encode()), ("a.txt", "\n".join(WORDS).encode())])  # fmt: skip
def test_compressed(tmp_path, name, content, ending, pack, streaming, cache):
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(pack(content[:20]) + pack(content[20:]))  # members one after the other are one file
    source = opened(path, text_unit="line", streaming=streaming)["train"]
    assert texts(source) == WORDS
    for start in range(5):
        assert [row["text"] for row in source.scan(start)] == WORDS[start:]
    assert cache.exists() is not streaming  # unpacked once, or never
    assert texts(opened(path, text_unit="line", streaming=streaming)["train"]) == WORDS


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("policy", ["error", "skip"])
def test_a_compressed_file_cut_short(tmp_path, streaming, policy):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(JSONL * 4000)[:-200])
    (tmp_path / "b.jsonl").write_bytes(JSONL)
    if policy == "error":
        with pytest.raises(DataError, match=r"a\.jsonl\.gz: .*[Tt]runcated"):
            list(opened(tmp_path, streaming=streaming)["train"].scan(0))
        return
    rows = list(opened(tmp_path, streaming=streaming, bad_rows="skip")["train"].scan(0))
    bad = [row["bad"] for row in rows if "bad" in row]
    assert [fault.kind for fault in bad] == ["unreadable_file"]
    assert [row["text"] for row in rows if "bad" not in row][-5:] == WORDS


def test_a_compressed_file_that_is_none(tmp_path):
    (tmp_path / "a.jsonl.zst").write_bytes(JSONL)
    with pytest.raises(DataError, match=r"a\.jsonl\.zst: "):
        opened(tmp_path / "a.jsonl.zst")
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"x"))
    with pytest.raises(ConfigError, match="parquet is compressed inside"):
        opened(tmp_path / "a.parquet.gz")


def arrow_stream(path, table):
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def arrow_file(path, table):
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def parquet_file(path, table):
    pyarrow.parquet.write_table(table, path, row_group_size=7)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(("name", "write"), [("a.arrow", arrow_stream), ("a.arrow", arrow_file), ("a.parquet", parquet_file)])  # fmt: skip
def test_columns(tmp_path, name, write, streaming, on_disk, monkeypatch, cache):
    if on_disk:
        monkeypatch.setattr(reading, "LARGE", 0)
    columns = {"text": [f"t{number}" for number in range(50)], "other": list(range(50)), "list": [[1]] * 50}
    write(tmp_path / name, pa.table(columns))
    source = opened(tmp_path / name, {"text": "text", "label": "list"}, streaming=streaming)["train"]
    assert texts(source) == columns["text"]
    assert texts(source, "label") == columns["list"]
    for start in (0, 6, 7, 8, 49, 50):
        assert [row["text"] for row in source.scan(start)] == columns["text"][start:]
    if not streaming:
        assert [row["text"] for row in source.read(np.array([49, 0, 13, 13]))] == ["t49", "t0", "t13", "t13"]
        assert cache.exists() is (on_disk and name == "a.parquet")


@pytest.mark.parametrize("streaming", [False, True])
def test_texts_that_are_not_utf8_in_columns(tmp_path, streaming):
    column = pa.array([b"fine", b"\xff\xfe", b"too"]).view(pa.string())
    pyarrow.parquet.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    rows = list(opened(tmp_path / "a.parquet", streaming=streaming, bad_rows="skip")["train"].scan(0))
    assert [row.get("text", "bad") for row in rows] == ["fine", "bad", "too"]
    with pytest.raises(DataError, match=r"a\.parquet row 2: not UTF-8"):
        texts(opened(tmp_path / "a.parquet", streaming=streaming)["train"])


def write_pairs(directory, suffix=""):
    directory.mkdir(exist_ok=True)
    for split, rows in (("train", 30), ("valid", 3), ("test2016", 2)):
        for language in ("en", "de"):
            content = "".join(f"{split} {language} {number}\n" for number in range(rows)).encode()
            path = directory / f"{split}.{language}{suffix}"
            path.write_bytes(gzip.compress(content) if suffix else content)
    return directory


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("pair", [["en", "de"], ["de", "en"]])
def test_aligned_files(tmp_path, pair, suffix, streaming):
    splits = opened(write_pairs(tmp_path / "corpus", suffix), PAIR, pair=pair, streaming=streaming)
    assert list(splits) == ["train", "validation", "test"]
    rows = list(splits["train"].scan(0))
    expected = [(f"train {pair[0]} {number}", f"train {pair[1]} {number}") for number in range(30)]
    assert [(row["source"], row["target"]) for row in rows] == expected
    assert [row["target"] for row in splits["train"].scan(28)] == [target for _, target in expected[28:]]
    assert len(list(splits["test"].scan(0))) == 2


def test_aligned_files_by_name(tmp_path):
    write_pairs(tmp_path)
    source = opened(tmp_path / "train.en", PAIR, target_path=str(tmp_path / "train.de"))["train"]
    assert source.read(np.array([7]))[0]["target"] == "train de 7"
    by_glob = opened(tmp_path / "train.*", PAIR, pair=["en", "de"])["train"]
    assert texts(by_glob, "target") == texts(source, "target")


@pytest.mark.parametrize("streaming", [False, True])
def test_files_that_are_not_aligned(tmp_path, streaming):
    (tmp_path / "a.en").write_text("1\n2\n3\n")
    (tmp_path / "a.de").write_text("1\n2\n")
    message = r"a\.en has 3 lines and .*a\.de has 2: they are not aligned"
    for policy in ("error", "skip"):  # nobody can tell which line is the one too many
        with pytest.raises(DataError, match=message):
            list(opened(tmp_path, PAIR, pair=["en", "de"], streaming=streaming, bad_rows=policy)["train"].scan(0))
    (tmp_path / "b.en").write_text("1\n")
    with pytest.raises(ConfigError, match=r"b\.en' has no partner 'b\.de'"):
        opened(tmp_path, PAIR, pair=["en", "de"])


def test_a_bad_line_of_a_pair(tmp_path):
    (tmp_path / "a.en").write_bytes(b"1\n2\n3\n")
    (tmp_path / "a.de").write_bytes(b"1\n\xff\n3\n")
    with pytest.raises(DataError, match=r"a\.en row 2: its line in .*a\.de: not UTF-8"):
        list(opened(tmp_path, PAIR, pair=["en", "de"])["train"].scan(0))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("quotes", [False, True])
@pytest.mark.parametrize(("ending", "separator"), [("csv", ","), ("tsv", "\t")])
def test_tables_without_a_heading(tmp_path, ending, separator, quotes, streaming):
    (tmp_path / f"a.{ending}").write_text(f'x{separator}"y"\n\n{separator}"q"\n')
    details = ReadingConfig(column_names=["a", "b"], quotes=quotes)
    source = opened(tmp_path, {"text": "a", "label": "b"}, reading=details, streaming=streaming)["train"]
    mark = "" if quotes else '"'
    assert [(row["text"], row["label"]) for row in source.scan(0)] == [("x", f"{mark}y{mark}"), ("", f"{mark}q{mark}")]


def test_quotes_that_are_text(tmp_path):
    (tmp_path / "a.tsv").write_text('text\tn\n"Hello" she said\t1\nfive" pipe\t2\n')
    with pytest.raises(DataError, match=r"row 2: malformed table .*set data\.reading\.quotes"):
        texts(opened(tmp_path / "a.tsv")["train"])
    plain = opened(tmp_path / "a.tsv", reading=ReadingConfig(quotes=False))["train"]
    assert texts(plain) == ['"Hello" she said', 'five" pipe']


CELLS = st.lists(st.lists(st.text(st.sampled_from('ab",\n\r\t é'), max_size=6), min_size=2, max_size=2), max_size=8)


@settings(max_examples=200)
@given(rows=CELLS, separator=st.sampled_from([",", "\t"]), cut=st.integers(0, 9))
def test_tables_are_cut_where_the_csv_module_cuts_them(rows, separator, cut):
    sink = io.StringIO(newline="")
    csv.writer(sink, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(rows)
    content = sink.getvalue().encode()
    records = list(table(separator)(io.BytesIO(content), 0, 10**6))
    parse = parse_cells(["x", "y"], separator, True)
    assert [list(parse(part).values()) for _, _, part in records] == rows
    assert [content[start:end] for start, end, _ in records] == [part for _, _, part in records]
    if records:
        start = records[cut % len(records)][0]  # from any mark on, the same records follow
        rest = io.BytesIO(content)
        rest.seek(start)
        assert list(table(separator)(rest, start, 10**6)) == records[cut % len(records) :]


@settings(max_examples=200)
@given(content=st.lists(st.sampled_from([b"ab", b"\n", b"\r\n", b" ", b"c"]), max_size=20).map(b"".join), limit=st.integers(1, 6))  # fmt: skip
def test_lines_and_paragraphs(content, limit):
    found = list(lines(io.BytesIO(content), 0, 10**6))
    assert b"".join(line for _, _, line in found) == content
    assert [line for _, _, line in found] == content.splitlines(keepends=True) or b"\r" in content
    short = list(lines(io.BytesIO(content), 0, limit))
    assert [record[:2] for record in short] == [record[:2] for record in found]  # of a long line only the bytes are cut
    assert all(len(line) <= limit + 2 for _, _, line in short)
    filled = [part for _, _, part in filled_lines(io.BytesIO(content), 0, 10**6)]
    assert filled == [line for _, _, line in found if line.strip()]
    grouped = [part for _, _, part in paragraphs(io.BytesIO(content), 0, 10**6)]
    assert b"".join(grouped) == b"".join(filled)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "line", "paragraph"])
def test_offsets_of_large_files_are_kept_and_follow_the_file(tmp_path, monkeypatch, cache, kind):
    monkeypatch.setattr(reading, "LARGE", 0)
    monkeypatch.setattr(text_files, "OFFSETS", 3)
    path = tmp_path / f"a.{'txt' if kind in ('line', 'paragraph') else kind}"

    def write(rows):
        each = {"jsonl": '{{"text": "t{}"}}\n', "csv": '"t{}",x\n', "line": "t{}\n", "paragraph": "t{}\n\n"}[kind]
        path.write_text(("text,n\n" if kind == "csv" else "") + "".join(map(each.format, range(rows))))
        return [f"t{number}" for number in range(rows)]

    unit = kind if kind in ("line", "paragraph") else "document"
    for rows, files in ((20, 1), (23, 2)):
        expected = write(rows)
        for _ in range(2):
            source = opened(path, text_unit=unit)["train"]
            assert texts(source) == expected
            assert isinstance(source.rows.parts[0]._offsets, np.memmap)
            assert len(list(cache.glob("*"))) == files
    assert [row["text"] for row in source.read(np.array([22, 3]))] == ["t22", "t3"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        ({"column": "lang", "equals": "en"}, [0, 2]),
        ({"column": "lang", "one_of": ["de", "fr"]}, [1, 3]),
        ({"column": "lang", "none_of": ["de"]}, [0, 2, 3, 4]),
        ({"column": "n", "equals": 3}, [3]),
        ({"column": "text", "min_length": 3}, [2, 3, 4]),
        ({"column": "text", "max_length": 3}, [0, 1, 2]),
        ({"column": "text", "min_length": 3, "max_length": 3}, [2]),
        ({"column": "lang", "min_length": 0}, [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_filters(tmp_path, conditions, kept, streaming):
    languages = ["en", "de", "en", "fr", None]
    rows = [{"text": "a" * (number + 1), "n": number, "lang": languages[number]} for number in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = opened(tmp_path / "a.jsonl", filters=[Filter(**conditions)], streaming=streaming)["train"]
    found = list(source.scan(0))
    assert [row["number"] for row in found] == list(range(5))  # numbers and places stay
    assert [row["number"] for row in found if "bad" not in row] == kept
    assert source.fingerprint != opened(tmp_path / "a.jsonl", streaming=streaming)["train"].fingerprint


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"column": "lang"}, "'lang' has no condition"),
        ({"column": "texd", "equals": 1}, "column 'texd' is not in the train data; did you mean 'text'"),
        ({"column": "text", "max_length": 0}, "max_length must be at least 1"),
    ],
)
def test_filters_that_cannot_be(tmp_path, conditions, message):
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    with pytest.raises(ConfigError, match=message):
        opened(tmp_path / "a.jsonl", filters=[Filter(**conditions)])


def test_a_huge_split_is_cut_on_disk_as_a_small_one_is_in_memory(monkeypatch):
    from lightning_nlp.data.sources import splitting

    expected = hash_split(5000, 0.03)
    monkeypatch.setattr(splitting, "IN_MEMORY", 700)
    found = hash_split(5000, 0.03)
    for part, numbers in expected.items():
        assert isinstance(found[part], np.memmap)
        assert np.array_equal(found[part], numbers)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_more_files_than_may_be_open(tmp_path, monkeypatch, ending, large):
    monkeypatch.setattr(reading, "LARGE", 0 if large else 1 << 30)
    monkeypatch.setattr(reading, "OPEN_FILES", 5)
    directory = tmp_path / "many"
    directory.mkdir()
    for number in range(40):
        rows = [{"text": f"t{number * 3 + row}"} for row in range(number % 4)]  # one in four has no rows
        if ending == "jsonl":
            (directory / f"{number:02d}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            pyarrow.parquet.write_table(
                pa.table({"text": [row["text"] for row in rows]}, pa.schema({"text": pa.string()})),
                directory / f"{number:02d}.parquet",
            )
    source = opened(directory)["train"]
    expected = [f"t{number * 3 + row}" for number in range(40) for row in range(number % 4)]
    before = len(os.listdir("/proc/self/fd"))
    order = np.random.default_rng(0).permutation(len(expected))
    assert [row["text"] for row in source.read(order)] == [expected[place] for place in order]
    assert texts(source) == expected
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 5
