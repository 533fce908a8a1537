"""A stream goes on from any place without reading what lies before, and in spite of failures."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from lightning_nlp.data.objectives import causal_lm
from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.order.documents import SourceDocuments
from lightning_nlp.data.order.lanes import BucketedLane, PackedLane
from lightning_nlp.data.sources import retry
from lightning_nlp.data.sources.columns import Columns
from lightning_nlp.data.sources.retry import Attempts, PersistentCursor, transient
from lightning_nlp.data.sources.source import SourceConfig, open_splits
from lightning_nlp.data.sources.streams import HubFeed, StreamSource
from lightning_nlp.errors import DataError

datasets = pytest.importorskip("datasets")
ROWS = 700


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """How long a reader would have waited."""
    waited = []
    monkeypatch.setattr(retry.time, "sleep", waited.append)
    monkeypatch.setattr(Attempts.__init__, "__defaults__", (waited.append,))
    return waited


def corpus(directory, kind):
    """``ROWS`` rows in three files and an empty one."""
    parts = [range(0, 300), range(300, 310), range(310, ROWS)]
    for number, part in enumerate(parts):
        path = directory / f"train-{number}.{kind}"
        if kind == "parquet":
            pyarrow.parquet.write_table(pa.table({"text": [f"row {n}" for n in part]}), path, row_group_size=64)
        elif kind == "arrow":
            with pa.ipc.new_file(path, pa.schema({"text": pa.string()})) as writer:
                for n in part:
                    writer.write_batch(pa.record_batch({"text": [f"row {n}"]}))
        elif kind == "csv":
            path.write_text("text,n\n" + "".join(f'"row {n}",{n}\n' for n in part))
        elif kind == "txt":
            path.write_text("".join(f"row {n}\n" for n in part))
        else:
            path.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in part))
    if kind != "parquet" and kind != "arrow":
        (directory / f"train-9.{kind}").write_text("")


def local(directory, kind, **more):
    corpus(directory, kind)
    config = SourceConfig(path=str(directory), text_unit="line", streaming=True, **{"validation_fraction": 0.0, **more})
    return open_splits(config, {"text": "text"})["train"]


def hub(shards=3, **more):
    dataset = datasets.Dataset.from_dict({"text": [f"row {n}" for n in range(ROWS)]}).to_iterable_dataset(shards)
    columns = Columns("train", {"text": "text"}, ["text"])
    return StreamSource("train", HubFeed(dataset, "train"), columns, "f00d", **more)


def saved(directory):
    datasets.Dataset.from_dict({"text": [f"row {n}" for n in range(ROWS)]}).save_to_disk(directory / "set")
    config = SourceConfig(path=f"hf:{directory / 'set'}", streaming=True, validation_fraction=0.0)
    return open_splits(config, {"text": "text"})["train"]


KINDS = ["jsonl", "csv", "txt", "parquet", "arrow", "hub", "saved"]


def source_of(kind, directory, **more):
    return hub(**more) if kind == "hub" else saved(directory) if kind == "saved" else local(directory, kind, **more)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_goes_on_from_every_mark(tmp_path, kind):
    source = source_of(kind, tmp_path)
    scan = source.scan(0)
    for place in range(ROWS + 1):
        if place % 53 == 0 or place in (299, 300, 301, 309, 310, 311, ROWS):
            mark = json.loads(json.dumps(scan.mark()))
            assert len(json.dumps(mark)) < 1000
            again = source.scan(place, mark)
            assert [row["text"] for row in again] == [f"row {n}" for n in range(place, ROWS)]
            later = source.scan(place + 5, mark)  # a mark may lie before the row asked for
            assert [row["number"] for row in later] == list(range(place + 5, ROWS))
        if place < ROWS:
            assert next(scan)["text"] == f"row {place}"
    assert next(scan, None) is None


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "hub"])
def test_marks_know_the_split_and_the_limit(tmp_path, kind):
    source = source_of(
        kind, tmp_path, **({"keep": (0.2, 1.0)} if kind == "hub" else {"validation_fraction": 0.2}), take=400
    )
    whole = [row["number"] for row in source.scan(0)]
    assert len(whole) == 400
    assert whole[-1] > 450
    scan = source.scan(0)
    for place in range(0, 400, 37):
        assert [row["number"] for row in source.scan(place, scan.mark())] == whole[place:]
        for _ in range(37):
            next(scan, None)


class Counting:
    """A stream that counts the rows it hands out."""

    def __init__(self, source):
        self.source, self.name, self.num_rows = source, source.name, None
        self.fingerprint, self.read = source.fingerprint, 0

    def scan(self, start, mark=None):
        inner, outer = self.source.scan(start, mark), self

        class Scan:
            mark = staticmethod(inner.mark)

            def __iter__(self):
                return self

            def __next__(self):
                row = next(inner)
                outer.read += 1
                return row

        return Scan()


def prepare(rows):
    return [causal_lm(np.frombuffer(row["text"].encode(), np.uint8), row["id"], 1, None, None) for row in rows]


LANES, BLOCK = 3, 16


def lane_of(source, number, packed=True):
    order = BlockOrder(source, seed=5, shuffle=True, block_rows=BLOCK, lanes=LANES)
    if packed:
        return PackedLane(SourceDocuments(order, number, LANES, prepare), 11)
    return BucketedLane(SourceDocuments(order, number, LANES, prepare), rows_per_window=8, rows_per_batch=2, seed=5)


def same(one, other):
    return one.ids == other.ids and np.array_equal(one.tokens, other.tokens)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["jsonl", "parquet", "hub"])
@pytest.mark.parametrize("cut", [0, 1, 50, 150, 151, 400])
def test_lanes_resume_exactly_and_read_a_few_blocks_only(tmp_path, kind, cut, packed):
    """The first and the second pass: 700 rows in 44 blocks, of which a lane has 14 or 15."""
    source = source_of(kind, tmp_path)
    straight = lane_of(source, 1, packed)
    for _ in range(cut):
        straight.next()
    state = json.loads(json.dumps(straight.state()))
    counting = Counting(source)
    again = lane_of(counting, 1, packed)
    again.restore(state)
    assert again.state() == state
    assert same(straight.next(), again.next())
    assert counting.read <= (1 if packed else 3) * LANES * BLOCK + BLOCK
    for _ in range(150):
        assert same(straight.next(), again.next())


def test_a_resume_on_other_ranks_reads_the_same(tmp_path):
    """Three ranks of a lane each were stopped at three places; one rank goes on with all lanes."""
    source = local(tmp_path, "jsonl")
    alone = [lane_of(source, number) for number in range(LANES)]
    for number, lane in enumerate(alone):
        for _ in range(60 + 9 * number):
            lane.next()
    states = [json.loads(json.dumps(lane.state())) for lane in alone]
    counting = Counting(source)
    order = BlockOrder(counting, seed=5, shuffle=True, block_rows=BLOCK, lanes=LANES)
    together = [PackedLane(SourceDocuments(order, number, LANES, prepare), 11) for number in range(LANES)]
    for lane, state in zip(together, states, strict=True):
        lane.restore(state)
    for step in range(120):
        assert all(same(one.next(), other.next()) for one, other in zip(alone, together, strict=True)), step
        if not step:
            assert counting.read < 12 * BLOCK  # from the earliest block that is needed, not from the beginning
    assert order.n_blocks == 44


def test_only_marks_that_lanes_need_are_held(tmp_path):
    source = local(tmp_path, "jsonl")
    order = BlockOrder(source, seed=5, shuffle=True, block_rows=BLOCK, lanes=LANES)
    lanes = [PackedLane(SourceDocuments(order, number, LANES, prepare), 11) for number in range(LANES)]
    for _ in range(300):
        for lane in lanes:
            lane.next()
        assert len(order._stream._marks) <= 3 * LANES


# Failures -----------------------------------------------------------------------------------------------------

DOWN = OSError("the network is down")


class FlakyCursor:
    def __init__(self, feed, at):
        self.feed, self.at, self.broken = feed, at, False

    def __next__(self):
        self._fail()
        if self.at == self.feed.rows:
            raise StopIteration
        self.at += 1
        return {"text": f"row {self.at - 1}"}

    def mark(self):
        self._fail()
        return self.at

    def _fail(self):
        assert not self.broken, "used after a failure"
        if self.feed.draw.random() < self.feed.rate:
            self.broken = True
            raise self.feed.error


class Flaky:
    """A feed of numbers whose cursors fail at random, at ``rate`` of the rows, and cannot be used after that."""

    def __init__(self, rate, error=DOWN, rows=2000):
        self.rate, self.error, self.rows, self.draw = rate, error, rows, random.Random(3)
        self.opened = 0

    def cursor(self, mark=None):
        self.opened += 1
        return FlakyCursor(self, mark or 0)

    place = staticmethod(lambda number, line=0: f"row {number}")
    explain = staticmethod(lambda error: DataError(f"explained: {error}"))


def flaky(feed, retries=40):
    return StreamSource("train", feed, Columns("train", {"text": "text"}, None), "f", retries=retries)


@pytest.mark.parametrize("error", [OSError("down"), ConnectionResetError("reset"), TimeoutError("late"), EOFError("end")], ids=repr)  # fmt: skip
def test_reading_goes_on_after_failures(error, no_waiting, capsys):
    feed = Flaky(0.004, error)
    assert [row["number"] for row in flaky(feed).scan(0)] == list(range(2000))
    assert [row["text"] for row in flaky(feed).scan(1990)] == [f"row {n}" for n in range(1990, 2000)]
    assert feed.opened > 8
    assert f"reading failed ({error}): trying again in 1 s (1 of 40)" in capsys.readouterr().err
    assert set(no_waiting) <= {1.0, 2.0, 4.0, 8.0, 16.0, 30.0}


def test_marks_are_exact_in_spite_of_failures():
    source = flaky(Flaky(0.003))
    scan = source.scan(0)
    for place in range(0, 2000, 100):
        assert next(source.scan(place, scan.mark()))["number"] == place
        assert [next(scan)["number"] for _ in range(100)] == list(range(place, place + 100))


def test_giving_up_is_one_line(no_waiting):
    with pytest.raises(DataError, match=r"^reading the train data failed 4 times: the network is down$"):
        list(flaky(Flaky(1.0), retries=3).scan(0))
    assert no_waiting == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("error", [FileNotFoundError("gone"), PermissionError("no"), ValueError("malformed")], ids=repr)
def test_what_waiting_does_not_mend_is_said_at_once(error, no_waiting):
    with pytest.raises(DataError, match=r"^explained: "):
        list(flaky(Flaky(1.0, error)).scan(0))
    assert no_waiting == []


def test_waits_double_up_to_half_a_minute():
    waited = []
    attempts = Attempts(8, waited.append)
    for _ in range(8):
        attempts.after(OSError("x"))
    assert waited == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    with pytest.raises(OSError, match="x"):
        attempts.after(OSError("x"))


def test_errors_of_network_libraries_are_known():
    assert transient(type("ReadTimeout", (Exception,), {"__module__": "httpx._exceptions"})("late"))
    wrapped = ValueError("wrapped")
    wrapped.__cause__ = ConnectionError("reset")
    assert transient(wrapped)
    assert not transient(ValueError("plain"))


def test_reading_by_number_tries_again_too(tmp_path, no_waiting, monkeypatch):
    corpus(tmp_path, "jsonl")
    config = SourceConfig(path=str(tmp_path), validation_fraction=0.0)
    source = open_splits(config, {"text": "text"})["train"]
    plain, failures = source.rows.read, iter([OSError("stale handle"), OSError("stale handle")])

    class Rows:
        def read(self, numbers):
            if (error := next(failures, None)) is not None:
                raise error
            return plain(numbers)

    monkeypatch.setattr(source, "rows", Rows())
    assert source.read(np.array([305]))[0]["text"] == "row 305"
    assert no_waiting == [1.0, 2.0]


def test_a_dataset_of_the_hub_that_fails_at_random(no_waiting):
    draw = random.Random(1)

    def rows(shards):
        for shard in shards:
            for number in range(100 * shard, 100 * shard + 100):
                if draw.random() < 0.01:
                    raise ConnectionError("hub is busy")
                yield {"text": f"row {number}"}

    dataset = datasets.IterableDataset.from_generator(rows, gen_kwargs={"shards": list(range(7))})
    source = StreamSource(
        "train", HubFeed(dataset, "train"), Columns("train", {"text": "text"}, ["text"]), "f", retries=60
    )
    assert [row["text"] for row in source.scan(0)] == [f"row {n}" for n in range(ROWS)]
    assert no_waiting


def test_a_persistent_cursor_holds_its_place_from_the_beginning():
    feed = Flaky(0.0)
    cursor = PersistentCursor(feed.cursor, 17, 3)
    assert cursor.mark() == 17
    assert feed.opened == 0  # nothing is opened before it is read
    assert next(cursor) == {"text": "row 17"}
    assert cursor.mark() == 18
