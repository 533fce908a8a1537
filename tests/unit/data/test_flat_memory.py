"""More rows than memory would hold: what a process takes does not grow with what it has read."""

from __future__ import annotations

import pytest

from benchmarks.memory import growth, measure, memory, write_shards
from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.sources import reading
from lightning_nlp.data.sources.source import SourceConfig, open_splits


@pytest.mark.parametrize("streaming", [True, False])
def test_reading_in_blocks_takes_no_more_memory_with_every_row(tmp_path, monkeypatch, streaming):
    """120,000 rows are 20 MB as Python objects."""
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path / "derived"))
    monkeypatch.setattr(reading, "LARGE", 0)
    rows = 120_000
    write_shards(tmp_path, rows, 3, group=10_000)
    source = open_splits(SourceConfig(path=str(tmp_path), streaming=streaming), {"text": "text"})["train"]
    order = BlockOrder(source, seed=0, shuffle=True, block_rows=256, lanes=4)
    read, marks, held = 0, [], []
    for block in range(-(-rows // 256)):
        reader = order.reader(block)
        read += len(reader.read(0, len(reader)))
        held.append(len(order._stream._kept))
        if block % 50 == 49:
            marks.append(memory()["RssAnon"])
    assert read == rows
    assert max(marks[2:]) - marks[1] < 8
    assert max(held) <= 4


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    directory = tmp_path_factory.mktemp("many")
    write_shards(directory, 200_000, 4)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [True, False])
def test_a_process_that_packs_many_rows_stays_as_it_is(many, streaming):
    """Rows that were kept would be 33 MB. For ten million: python -m benchmarks.memory."""
    found, _ = measure(many, 200_000, streaming)
    assert len(found) == 10
    assert growth(found) < 24
