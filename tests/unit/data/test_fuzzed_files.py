"""Ten thousand rows in every format, many of them malformed: none is lost, none is a traceback, each is named."""

from __future__ import annotations

import gzip
import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_nlp.data.sources.source import SourceConfig, open_splits
from lightning_nlp.errors import ConfigError, DataError

ROWS = 1000
WORDS = [
    "alpha",
    "größe",
    "北京",
    "🙂",
    "a\u200db",
    "e\u0301",
    "NA",
    "007",
    "null",
    "x\u2028y",
    "<pad>",
    "\ufffd",
    "\x7f",
    "a\x0bb",
]
WRONG_JSON = {
    b"{oops": "malformed_json",
    b'{"text": "cut off': "malformed_json",
    b'{"text": "a"} {"text": "b"}': "malformed_json",
    b'{"text": "a",}': "malformed_json",
    b'{"text": ' + b"9" * 5000 + b"}": "malformed_json",
    b"[" * 3000: "malformed_json",
    b'{"text": "tab\there"}': "malformed_json",
    b"\xef\xbb\xbf\xef\xbb\xbf{}": "malformed_json",
    b"5": "not_an_object",
    b"null": "not_an_object",
    b'["text"]': "not_an_object",
    b'"text"': "not_an_object",
    b'{"text": "\xff"}': "invalid_utf8",
    b'{"text": "\xed\xa0\x80"}': "invalid_utf8",
    b'{"text": "\\ud800"}': "lone_surrogate",
    b'{"text": "a", "other": {"deep": ["\\udc00"]}}': "lone_surrogate",
    b'{"text": "a\\u0000b"}': "nul_byte",
    b'{"texts": "a"}': "missing_column",
    b"{}": "missing_column",
    b'{"text": null}': "missing_value",
    b'{"text": 5}': "wrong_type",
    b'{"text": ["a", {"b": 1}]}': "wrong_type",
    b'{"text": "' + b"long " * 2000 + b'"}': "too_long",
}
WRONG_LINES = {b"\xff\xfe": "invalid_utf8", b"a\0b": "nul_byte", b"long " * 2000: "too_long", b"\xc3": "invalid_utf8"}
WRONG_CELLS = {
    b"\xff\xfe@1": "invalid_utf8",
    b"a\0b@1": "nul_byte",
    b"long " * 2000 + b"@1": "too_long",
    b"one": "cell_count",
    b"a@b@c": "cell_count",
    b"@@": "cell_count",
    b'"open@1': "malformed_table",
    b'"a"b@1': "malformed_table",
    b'"a@1"': "cell_count",
    b'"\xff"@1': "invalid_utf8",
    b'"a\0b"@1': "nul_byte",
}
LIMIT = 8000


def text_of(draw):
    return " ".join(draw.choices(WORDS, k=draw.randint(1, 12)))


def mixed(draw, good, wrong):
    """``[(bytes, text or kind, good)]``: about a third is wrong, of every kind."""
    found = []
    for _ in range(ROWS):
        if draw.random() < 0.3:
            content, kind = draw.choice(list(wrong.items()))
            found.append((content, kind, False))
        else:
            text = text_of(draw)
            found.append((good(draw, text), text, True))
    return found


def json_row(draw, text):
    row = {
        "text": text,
        "n": [draw.random(), None, {"a": []}],
        "id": draw.choice([None, "same", 5, text, [1], {"b": 2}]),
    }
    return json.dumps(row, ensure_ascii=draw.random() < 0.5).encode()


def cells(separator):
    def row(draw, text):
        form = draw.randrange(3)
        if form == 0:
            return f"{text}{separator}1".encode()
        if form == 1:
            return f'"{text}"{separator}"1"'.encode()
        return f'"{text}"{separator}'.encode()

    return row


def wrong_cells(separator):
    return {content.replace(b"@", separator.encode()): kind for content, kind in WRONG_CELLS.items()}


def lines_of(found, draw, blank):
    """A file of these records, with blank lines in between, and several kinds of line breaks."""
    parts = []
    for content, _, _ in found:
        parts.append(content + draw.choice([b"\n", b"\r\n"]))
        if blank and draw.random() < 0.1:
            parts.append(draw.choice([b"\n", b"\r\n", b"\n\n"]))
    return b"".join(parts)


def make(kind, directory, draw):
    """The files of one kind, ``(settings, what every row is)``."""
    settings = {"text_unit": "line"}
    if kind == "jsonl":
        found = mixed(draw, json_row, WRONG_JSON)
        content = lines_of(found, draw, blank=True)
    elif kind == "txt":
        found = mixed(draw, lambda _, text: text.encode(), WRONG_LINES)
        content = lines_of(found, draw, blank=False)
    elif kind in ("csv", "tsv"):
        separator = "," if kind == "csv" else "\t"
        found = mixed(draw, cells(separator), wrong_cells(separator))
        content = f"text{separator}n\n".encode() + lines_of(found, draw, blank=True)
    elif kind == "json":
        whole = {
            content: name
            for content, name in WRONG_JSON.items()
            if name not in ("malformed_json", "invalid_utf8", "too_long")
        }
        found = mixed(draw, json_row, whole)
        content = b"[" + b",\n".join(content for content, _, _ in found) + b"]"
    else:
        raise AssertionError(kind)
    if draw.random() < 0.5 and kind != "txt":
        content = b"\xef\xbb\xbf" + content
    (directory / f"a.{kind}").write_bytes(content)
    (directory / f"b.{kind}.gz").write_bytes(gzip.compress(content))
    return settings, found + found


def opened(path, streaming, fields=None, **settings):
    from lightning_nlp.data.sources.reading import ReadingConfig

    config = SourceConfig(
        path=str(path), streaming=streaming, validation_fraction=0.0, bad_rows="skip",
        reading=ReadingConfig(max_row_bytes=LIMIT), **settings,
    )  # fmt: skip
    return open_splits(config, fields or {"text": "text"})["train"]


def outcome(row):
    """A row's text, or the kind of what is wrong with it."""
    return row["bad"].kind if "bad" in row else row["text"]


@pytest.mark.parametrize("kind", ["jsonl", "txt", "csv", "tsv", "json"])
def test_every_row_arrives_or_is_named(tmp_path, kind):
    draw = random.Random(kind)
    settings, expected = make(kind, tmp_path, draw)
    for streaming in (True, False):
        source = opened(tmp_path, streaming, **settings)
        rows = list(source.scan(0))
        assert [outcome(row) for row in rows] == [what for _, what, _ in expected]
        assert [row["number"] for row in rows] == list(range(len(expected)))
        assert [("bad" in row) for row in rows] == [not good for _, _, good in expected]
    shuffled = np.random.default_rng(0).permutation(len(expected))[:200]
    assert [outcome(row) for row in source.read(shuffled)] == [expected[number][1] for number in shuffled]
    starts = {name: (tmp_path / name).read_bytes() for name in (f"a.{kind}",)}
    bad = [row for row in rows[: len(expected) // 2] if "bad" in row]
    for row in draw.sample(bad, 12):
        name = source.place(row["number"], row["bad"].line)
        file, _, line = name.rpartition(" row " if kind != "json" else " element ")
        assert file == str(tmp_path / f"a.{kind}"), name
        content = expected[row["number"]][0]
        if kind in ("jsonl", "txt"):
            assert starts[f"a.{kind}"].split(b"\n")[int(line) - 1].rstrip(b"\r").removeprefix(b"\xef\xbb\xbf") in (
                content, content.removeprefix(b"\xef\xbb\xbf"), content.removeprefix(b"\xef\xbb\xbf" * 2),
            )  # fmt: skip
        else:
            assert int(line) == row["number"] + 1 + (kind != "json")


def test_pairs(tmp_path):
    draw = random.Random(7)
    one, two = (mixed(draw, lambda _, text: text.encode(), WRONG_LINES) for _ in range(2))
    (tmp_path / "a.en").write_bytes(lines_of(one, draw, blank=False))
    (tmp_path / "a.de.gz").write_bytes(gzip.compress(lines_of(two, draw, blank=False)))
    expected = [
        (source[1], target[1]) if source[2] and target[2] else (source if not source[2] else target)[1]
        for source, target in zip(one, two, strict=True)
    ]
    # What is wrong with a line of bytes comes before what is wrong with a text.
    for number, (source, target) in enumerate(zip(one, two, strict=True)):
        if source[1] == "nul_byte" and not target[2] and target[1] != "nul_byte":
            expected[number] = target[1]
    for streaming in (True, False):
        source = opened(tmp_path, streaming, {"source": "source", "target": "target"}, pair=["en", "de"])
        found = [row["bad"].kind if "bad" in row else (row["source"], row["target"]) for row in source.scan(0)]
        assert found == expected


def test_parquet(tmp_path):
    draw = random.Random(8)
    values = {b"\xff\xfe": "invalid_utf8", b"a\0b": "nul_byte", None: "missing_value"}
    found = mixed(draw, lambda _, text: text.encode(), values)
    raw = pa.array([content for content, _, _ in found], pa.binary())
    texts = pa.StringArray.from_buffers(len(raw), *raw.buffers()[1:], raw.buffers()[0])  # as others write it: unchecked
    pq.write_table(pa.table({"text": texts, "n": range(len(found))}), tmp_path / "a.parquet", row_group_size=300)
    pq.write_table(pa.table({"n": range(50)}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": pa.array(range(50))}), tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 and then nothing")
    expected = [what for _, what, _ in found] + ["missing_column"] * 50 + ["wrong_type"] * 50 + ["unreadable_file"]
    for streaming in (True, False):
        assert [outcome(row) for row in opened(tmp_path, streaming).scan(0)] == expected


@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "json", "parquet", "txt.gz", "jsonl.gz"])
def test_random_damage_is_never_a_traceback(tmp_path, kind):
    """Bytes are overwritten, left out and put in anywhere; both ways of reading agree on what is left."""
    draw = random.Random(kind)
    plain = "".join(json.dumps({"text": text_of(draw), "n": number}) + "\n" for number in range(60))
    if kind in ("csv", "tsv"):
        plain = "text\tn\n".replace("\t", "," if kind == "csv" else "\t") + "".join(
            f'"{text_of(draw)}"{"," if kind == "csv" else chr(9)}{number}\n' for number in range(60)
        )
    elif kind == "json":
        plain = json.dumps([json.loads(line) for line in plain.splitlines()])
    good = plain.encode()
    if kind == "parquet":
        pq.write_table(pa.table({"text": [text_of(draw) for _ in range(60)]}), tmp_path / "good.parquet")
        good = (tmp_path / "good.parquet").read_bytes()
        (tmp_path / "good.parquet").unlink()
    elif kind.endswith(".gz"):
        good = gzip.compress(good)
    outcomes = set()
    for number in range(60):
        content = bytearray(good)
        for _ in range(draw.choice([1, 1, 3, 30])):
            place, size = draw.randrange(len(content) - 8), draw.choice([1, 1, 2, 8])
            new = draw.choice([b"", draw.randbytes(size), b'"', b"\n", b"\r", b"\0", b"{", b"\\"])
            content[place : place + draw.choice([0, size])] = new
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(content)
        found = []
        for streaming in (True, False):
            try:
                rows = list(opened(path, streaming, text_unit="line").scan(0))
            except (DataError, ConfigError) as error:
                assert "\n" not in str(error)
                outcomes.add(type(error))
            else:
                found.append([outcome(row) for row in rows])
        if len(found) == 2 and "unreadable_file" not in found[0]:
            assert found[0] == found[1]
            outcomes.add("rows")
    assert "rows" in outcomes or kind.endswith(".gz")
