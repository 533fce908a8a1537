"""The 25 kinds of bad rows: ``error`` names file and row in one line, ``skip`` loses those rows alone and counts them."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from lightning_nlp.data.objectives import causal_lm, classification
from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.order.documents import SourceDocuments
from lightning_nlp.data.order.lanes import PackedLane, counts_state
from lightning_nlp.data.sources import bad_rows
from lightning_nlp.data.sources.bad_rows import BadRow, BadRowError, BadRows, bad_of, examine, refuse_long, usable
from lightning_nlp.data.sources.source import SourceConfig, open_splits
from lightning_nlp.data.summary import in_numbers, in_words
from lightning_nlp.errors import ConfigError, DataError

TEXT, LABELLED, PAIR = {"text": "text"}, {"text": "text", "label": "label"}, {"source": "source", "target": "target"}
DIALOGUE = {"turns": "turns"}


def js(**values):
    return json.dumps(values) + "\n"


GOOD = js(text="good")


def parquet(rows):
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


LONG = {"reading": {"max_row_bytes": 1_000_000}}
# name: (files, fields, settings, kind (None: no fault), what `error` says after the folder, ids of the good rows)
CASES = {
    "malformed JSON": ({"a.jsonl": GOOD + '{"text": oops}\n' + GOOD}, TEXT, {}, "malformed_json", "a.jsonl row 2: malformed JSON", [0, 2]),
    "truncated last line": ({"a.jsonl": GOOD + GOOD + GOOD[:9]}, TEXT, {}, "malformed_json", "a.jsonl row 3: malformed JSON", [0, 1]),
    "wrong column": ({"a.jsonl": js(texts="x")}, TEXT, {}, ConfigError, "data.text_column 'text' is not in the train data; did you mean 'texts'?", []),
    "missing column": ({"a.jsonl": GOOD + js(body="x") + GOOD}, TEXT, {}, "missing_column", "a.jsonl row 2: no column 'text' (columns: body)", [0, 2]),
    "null": ({"a.jsonl": js(text=None) + GOOD}, TEXT, {}, "missing_value", "a.jsonl row 1: column 'text' is empty", [1]),
    "empty text": ({"a.jsonl": GOOD + js(text=" ") + GOOD}, TEXT, {"also_bad": ["empty"]}, "empty_text", "a.jsonl row 2: column 'text' is an empty text", [0, 2]),
    "number for string": ({"a.jsonl": GOOD + js(text=5)}, TEXT, {}, "wrong_type", "a.jsonl row 2: column 'text' holds int, not text", [0]),
    "invalid UTF-8": ({"a.jsonl": GOOD.encode() + b'{"text": "\xff"}\n' + GOOD.encode()}, TEXT, {}, "invalid_utf8", "a.jsonl row 2: not UTF-8 (byte 11 of the line)", [0, 2]),
    "lone surrogate": ({"a.jsonl": GOOD + '{"text": "\\ud800 alone"}\n' + '{"text": "\\ud83d\\ude00"}\n'}, TEXT, {}, "lone_surrogate", "a.jsonl row 2: half a surrogate pair", [0, 2]),
    "NUL byte": ({"a.jsonl": GOOD + '{"text": "a\\u0000b"}\n'}, TEXT, {}, "nul_byte", "a.jsonl row 2: column 'text' holds a NUL byte", [0]),
    "byte order mark": ({"a.jsonl": b"\xef\xbb\xbf" + GOOD.encode()}, TEXT, {}, None, "", [0]),
    "10 MB line": ({"a.jsonl": GOOD + js(text="x" * 10_000_001) + GOOD}, TEXT, {}, "too_long", "a.jsonl row 2: longer than 10000000 bytes", [0, 2]),
    "blank lines": ({"a.jsonl": "\n" + GOOD + "\n  \n\r\n" + GOOD + "\n"}, TEXT, {}, None, "", [0, 1]),
    "CSV quote broken": ({"a.csv": 'text,label\none,a\n"two,b\n"three",c\nfour,d\n'}, LABELLED, {}, "malformed_table", "a.csv row 3: malformed table", [0, 2, 3]),
    "CSV quote never closed": ({"a.csv": 'text,label\none,a\n"two,b\nthree,c\n'}, LABELLED, {}, "malformed_table", "a.csv row 3: malformed table (a quote is never closed)", [0, 2]),
    "TSV with extra tab": ({"a.tsv": "text\tlabel\nx\ta\ny\tb\tc\nz\td\n"}, LABELLED, {}, "cell_count", "a.tsv row 3: 3 cells instead of 2", [0, 2]),
    "Parquet truncated": ({"a.parquet": parquet([{"text": "xx"}]), "b.parquet": parquet([{"text": "y" * 900}])[:-40], "c.parquet": parquet([{"text": "zz"}])}, TEXT, {}, "unreadable_file", "b.parquet: ", [0, 2]),
    "Parquet with another schema in one shard": ({"a.parquet": parquet([{"text": "xx"}]), "b.parquet": parquet([{"body": "y"}, {"body": "y"}]), "c.parquet": parquet([{"n": 1, "text": "zz"}])}, TEXT, {}, "missing_column", "b.parquet row 1: no column 'text'", [0, 3]),
    "Parquet with another type in one shard": ({"a.parquet": parquet([{"text": "xx"}]), "b.parquet": parquet([{"text": 7}])}, TEXT, {}, "wrong_type", "b.parquet row 1: column 'text' holds int", [0]),
    "empty file": ({"a.jsonl": ""}, TEXT, {}, DataError, "the train data has no rows", []),
    "empty shard among full ones": ({"a.jsonl": GOOD, "b.jsonl": "", "c.jsonl": GOOD, "d.jsonl": "\n"}, TEXT, {}, None, "", [0, 1]),
    "unknown label": ({"a.jsonl": js(text="x", label="even") + js(text="y", label="prime") + js(text="z", label="odd")}, LABELLED, {}, "unknown_label", "a.jsonl row 2: label 'prime'", [0, 2]),
    "label out of range": ({"a.jsonl": js(text="x", label=0) + js(text="y", label=7)}, LABELLED, {}, "unknown_label", "a.jsonl row 2: label '7'", [0]),
    "pair with one side empty": ({"a.jsonl": js(source="x", target="y") + js(source="x", target="")}, PAIR, {"also_bad": ["empty"]}, "empty_text", "a.jsonl row 2: column 'target' is an empty text", [0]),
    "dialogue without an assistant turn": ({"a.jsonl": js(turns=["user", "assistant"]) + js(turns=["user"])}, DIALOGUE, {}, "unusable", "a.jsonl row 2: no assistant turn", [0]),
    "text longer than the context": ({"a.jsonl": GOOD + js(text="x" * 99)}, TEXT, {"also_bad": ["long"]}, "over_length", "a.jsonl row 2: row train:1 has 98 tokens, more than fit (32)", [0]),
    "duplicate ids": ({"a.jsonl": js(id="p", text="11") + js(id="q", text="22") + js(id="p", text="33") + js(id="p", text="44")}, TEXT, {"also_bad": ["duplicate_id"]}, "duplicate_id", "a.jsonl row 3: an earlier row has the id 'p' too", [0, 1]),
}  # fmt: skip
STREAMABLE = [name for name in CASES if name != "duplicate ids"]
ALL = [(name, False) for name in CASES] + [(name, True) for name in STREAMABLE]


def prepare(rows):
    """As the objectives do, a byte a token."""
    found = []
    for row in rows:
        if "turns" in row:
            if "assistant" not in row["turns"]:
                raise DataError("no assistant turn")
            found.append(causal_lm(np.arange(4), row["id"], 4, None, None))
        elif "label" in row:
            if str(row["label"]) not in ("even", "odd", "0", "1", "a", "c", "d"):
                raise BadRowError("unknown_label", f"label '{row['label']}' is unknown")
            found.append(classification(np.arange(4), 0, row["id"], 32, None, None))
        else:
            text = "".join(row[name] for name in ("text", "source", "target") if name in row)
            found.append(causal_lm(np.frombuffer(text.encode(), np.uint8), row["id"], 1, None, None))
    return found


def read(tmp_path, case, streaming, **settings):
    files, fields, extra, _, _, _ = CASES[case]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    config = SourceConfig(path=str(tmp_path), validation_fraction=0.0, streaming=streaming, **extra, **settings)
    source = open_splits(config, fields)["train"]
    ask = refuse_long(prepare, 32) if "long" in config.policy.also else prepare
    rows = list(source.scan(0))
    return source, rows, examine(ask, rows, source)


@pytest.mark.parametrize(("case", "streaming"), ALL)
def test_error_names_file_and_row(tmp_path, case, streaming):
    _, _, _, kind, message, good = CASES[case]
    if kind is None:
        _, rows, examples = read(tmp_path, case, streaming)
        assert [row["number"] for row in rows] == good
        assert all(example is not None for example in examples)
        return
    with pytest.raises((ConfigError, DataError)) as caught:
        _, rows, _ = read(tmp_path, case, streaming)
        if not rows:
            raise DataError("the train data has no rows")  # said by the reader of a stream: see test_order
    text = str(caught.value)
    assert message in text
    assert kind in (ConfigError, DataError) or text.startswith(str(tmp_path))
    assert "\n" not in text
    assert len(text.replace(str(tmp_path), "")) < 200


@pytest.mark.parametrize(("case", "streaming"), [(name, how) for name, how in ALL if type(CASES[name][3]) is not type])
def test_skip_loses_the_bad_rows_alone(tmp_path, case, streaming):
    _, _, _, kind, message, good = CASES[case]
    source, rows, examples = read(tmp_path, case, streaming, bad_rows="skip")
    found = [row["number"] for row, example in zip(rows, examples, strict=True) if not isinstance(example, BadRow)]
    assert found == good
    bad = [(row, example) for row, example in zip(rows, examples, strict=True) if isinstance(example, BadRow)]
    assert {example.kind for _, example in bad} == ({kind} if kind else set())
    if bad:
        assert message in bad_rows.located(source, *bad[0])
    assert all(example is not None for example in examples)


def source_of(tmp_path, bad, rows, **settings):
    """JSON lines of which those with the numbers ``bad`` are malformed."""
    path = tmp_path / "train.jsonl"
    path.write_text("".join("{oops\n" if number in bad else js(text=f"t{number}") for number in range(rows)))
    return open_splits(SourceConfig(path=str(path), validation_fraction=0.0, **settings), TEXT)["train"]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("settings", "bad", "stops_at"),
    [
        ({"bad_rows": "error"}, {1500}, 1500),
        ({"bad_rows": "auto"}, {1000, 1500, 2999}, None),
        ({"bad_rows": "auto"}, {999}, 999),
        ({"bad_rows": "skip"}, {0, 999, 1500}, None),
        ({"bad_rows": "skip", "bad_rows_budget": 0}, {7}, 7),
        ({"bad_rows": "skip", "bad_rows_budget": 2}, {1, 2, 3}, 3),
        ({"bad_rows": "skip", "bad_rows_budget": 3}, {1, 2, 3}, None),
        ({"bad_rows": "skip", "bad_rows_budget": 0.01}, set(range(10)), None),  # of at least 1,000 rows
        ({"bad_rows": "skip", "bad_rows_budget": 0.01}, set(range(11)), 10),
        ({"bad_rows": "skip", "bad_rows_budget": 0.01}, {*range(10), *range(1989, 1999)}, 1998),
        ({"bad_rows": "skip", "bad_rows_budget": 0.01}, {*range(10), *range(1999, 2010)}, 2009),
    ],
    ids=str,
)  # fmt: skip
def test_policies_and_budgets(tmp_path, settings, bad, stops_at, streaming):
    source, found = source_of(tmp_path, bad, 3000, streaming=streaming, **settings), []
    if stops_at is None:
        found = [row["number"] for row in usable(source.scan(0), source)]
        assert found == [number for number in range(3000) if number not in bad]
        return
    with pytest.raises(DataError, match=rf"train\.jsonl row {stops_at + 1}: malformed JSON"):
        for row in usable(source.scan(0), source):
            found.append(row["number"])
    if settings["bad_rows"] != "error" or streaming:  # rows by number are read some at a time
        assert found == [number for number in range(stops_at) if number not in bad]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("cut", [0, 3, 40])
def test_lanes_count_bad_rows_and_keep_their_order(tmp_path, streaming, cut):
    bad = {number for number in range(300) if number % 7 == 3}
    source = source_of(tmp_path, bad, 300, streaming=streaming, bad_rows="skip", bad_rows_budget=1000)

    def lane(number):
        order = BlockOrder(source, seed=1, shuffle=True, block_rows=16, lanes=2)
        return PackedLane(SourceDocuments(order, number, 2, prepare), 5)

    for number in range(2):
        straight = lane(number)
        for _ in range(cut):
            straight.next()
        state = json.loads(json.dumps(straight.state()))
        again = lane(number)
        again.restore(state)
        for _ in range(60):
            one, other = straight.next(), again.next()
            assert one.ids == other.ids
            assert np.array_equal(one.tokens, other.tokens)
        assert counts_state(again.documents.counts) == counts_state(straight.documents.counts)
        seen = straight.documents.counts
        assert seen.skipped == {"malformed_json": bad_of(seen.skipped)}
        assert 0.1 < bad_of(seen.skipped) / seen.rows < 0.2


def test_lanes_stop_at_the_budget_and_under_auto_at_once(tmp_path):
    bad = set(range(0, 3000, 20))
    for settings, message in (
        ({"bad_rows": "skip", "bad_rows_budget": 5}, "6 of .* rows of the train data are bad, more than data.bad_rows_budget 5"),
        ({"bad_rows": "auto"}, "^[^ ]*train.jsonl row .*: malformed JSON"),
    ):  # fmt: skip
        source = source_of(tmp_path, bad, 3000, **settings)
        lane = PackedLane(
            SourceDocuments(BlockOrder(source, seed=1, shuffle=True, block_rows=64, lanes=1), 0, 1, prepare), 5
        )
        with pytest.raises(DataError, match=message):
            for _ in range(2000):
                lane.next()


@pytest.mark.parametrize(("lanes", "bad", "stops"), [(1, 999, True), (1, 1000, False), (4, 249, True), (4, 250, False)])
def test_under_auto_the_first_rows_are_those_of_all_lanes(tmp_path, lanes, bad, stops):
    source = source_of(tmp_path, {bad}, 8000, bad_rows="auto")
    order = BlockOrder(source, seed=1, shuffle=False, block_rows=256, lanes=lanes)
    lane = PackedLane(SourceDocuments(order, 0, lanes, prepare), 4)  # of four, the first reads rows 0 to 255 first
    if stops:
        with pytest.raises(DataError, match=f"row {bad + 1}"):
            [lane.next() for _ in range(1200)]
    else:
        [lane.next() for _ in range(1200)]
        assert lane.documents.counts.skipped == {"malformed_json": 1}


def test_an_objective_that_refuses_a_row_loses_no_other():
    calls = []

    def strict(rows):
        calls.append(len(rows))
        if any(row["text"] == "no" for row in rows):
            raise DataError("no is no text")
        return [causal_lm(np.arange(5), row["id"], 5, None, None) for row in rows]

    class Source:
        name, bad_rows = "train", BadRows("skip")

    rows = [{"id": f"r{number}", "text": "no" if number in (2, 5) else "yes"} for number in range(8)]
    found = examine(strict, rows, Source())
    assert [isinstance(example, BadRow) for example in found] == [number in (2, 5) for number in range(8)]
    assert calls == [8] + [1] * 8
    Source.bad_rows = BadRows()
    with pytest.raises(DataError, match=r"^row r2: no is no text$"):
        examine(strict, rows, Source())


def test_what_is_counted_is_said_in_words_and_numbers():
    counts = {"documents": 90, "dropped": 2, "truncated": 0, "tokens_cut": 0, "split": 7, "skipped/malformed_json": 3, "skipped/wrong_type": 1, "skipped/filtered": 4}  # fmt: skip
    words = in_words(counts, "64")
    assert (
        words
        == "90 documents read, 7 split over rows, 2 dropped (nothing to learn from), 4 bad rows skipped (3 malformed_json, 1 wrong_type), 4 filtered out"
    )
    assert in_numbers(counts) == {
        "data/documents": 90, "data/dropped": 2, "data/split": 7, "data/bad_rows": 4,
        "data/bad_rows/malformed_json": 3, "data/bad_rows/wrong_type": 1, "data/filtered": 4,
    }  # fmt: skip


def test_each_kind_is_announced_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bad_rows, "_announced", set())
    source = source_of(tmp_path, {5, 6, 7}, 20, bad_rows="skip")
    assert len(list(usable(source.scan(0), source))) == 17
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "skipping bad rows (malformed_json): " in lines[0]
    assert "train.jsonl row 6: malformed JSON" in lines[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bad_rows_budget": -1}, "data.bad_rows_budget"),
        ({"streaming": True, "also_bad": ["duplicate_id"]}, "duplicate_id needs data.streaming false"),
    ],
)
def test_settings_that_cannot_be(tmp_path, settings, message):
    (tmp_path / "a.jsonl").write_text(GOOD)
    with pytest.raises(ConfigError, match=message):
        SourceConfig(path=str(tmp_path / "a.jsonl"), **settings).policy  # noqa: B018
