"""The file of predictions: cut anywhere and gone on with, it is the same; of something else, it is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from lightning_nlp.callbacks.predictions import PredictionWriter
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.exit_codes import GracefulExit

RECORDS = [{"id": str(n), "text": '}\\n", "error": ü', "prediction": "x" * n} for n in range(10)]
RECORDS[3] = {"id": "3", "error": "the text is empty"}
BATCH = 4


class Strategy:
    def broadcast(self, value):
        return value


def begin(path, facts=None, *, overwrite=False, batch=BATCH):
    """A writer that has looked at what is there, with its trainer."""
    data = SimpleNamespace(prediction_facts=lambda: {"input": "a", **(facts or {})}, prediction_batch_size=batch)
    trainer = SimpleNamespace(
        datamodule=data, is_global_zero=True, world_size=1, precision="32-true", strategy=Strategy()
    )
    module = SimpleNamespace(task_name="Translation", task_hyperparameters=lambda: {"generation": {"beams": 1}})
    writer = PredictionWriter(path, {"checkpoint": "step 1"}, overwrite=overwrite)
    writer.setup(trainer, module, "predict")
    return writer, trainer


def answer(writer, trainer, stop=10):
    """Batches from the first that is not done, up to record ``stop``."""
    writer.on_predict_start(trainer, None)
    for start in range(trainer.datamodule.predicted, stop, BATCH):
        writer.on_predict_batch_end(trainer, None, RECORDS[start : start + BATCH], None, 0)


def whole(path):
    writer, trainer = begin(path)
    answer(writer, trainer)
    writer.on_predict_end(trainer, None)
    return path.read_bytes()


def test_cut_at_any_byte_it_becomes_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    expected, path = whole(tmp_path / "whole.jsonl"), tmp_path / "cut.jsonl"
    ends = [place for place, byte in enumerate(expected) if byte == ord("\n")]
    for size in sorted({*range(0, len(expected), 9), *(end + by for end in ends for by in (0, 1, 2))}):
        for tail in (b"", b"\0\0\0"):  # what is left of a block after a power cut
            path.unlink(missing_ok=True)
            writer, trainer = begin(path)
            path.write_bytes(expected[:size] + tail)
            writer, trainer = begin(path)
            assert trainer.datamodule.predicted == expected[:size].count(b"\n") // BATCH * BATCH
            answer(writer, trainer)
            writer.on_predict_end(trainer, None)
            assert path.read_bytes() == expected and (writer.written, writer.failed) == (10, 1)


def test_a_complete_file_is_left_alone(tmp_path):
    expected = whole(tmp_path / "out.jsonl")
    with pytest.raises(GracefulExit, match=r"10 predictions in .* already") as stop:
        begin(tmp_path / "out.jsonl")
    assert stop.value.code == 0 and (tmp_path / "out.jsonl").read_bytes() == expected
    state = json.loads((tmp_path / "out.jsonl.state.json").read_text())
    assert (state["records"], state["failed"], state["bytes"]) == (10, 1, len(expected))
    (tmp_path / "out.jsonl").unlink()  # taken away: it is made anew
    assert begin(tmp_path / "out.jsonl")[1].datamodule.predicted == 0


def test_other_predictions_are_refused_naming_the_difference(tmp_path):
    path = tmp_path / "out.jsonl"
    writer, trainer = begin(path)
    answer(writer, trainer, stop=4)
    with pytest.raises(ConfigError, match=r"input is a there, b here; name another --output, or add --overwrite"):
        begin(path, {"input": "b"})
    with pytest.raises(ConfigError, match=r"input is a there, b here \(and 1 more\)"):
        begin(path, {"input": "b", "data.max_length": 3})
    assert begin(path)[1].datamodule.predicted == 4
    assert begin(path, {"input": "b"}, overwrite=True)[1].datamodule.predicted == 0 and path.read_bytes() == b""
    with pytest.raises(ConfigError, match="input is b there, a here"):
        begin(path)


def test_what_is_not_ours_is_not_touched(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("precious\n")
    with pytest.raises(ConfigError, match=r"exists, without a readable mine.jsonl.state.json beside it"):
        begin(path)
    (tmp_path / "mine.jsonl.state.json").write_text("{")
    with pytest.raises(ConfigError, match="without a readable"):
        begin(path)
    assert path.read_text() == "precious\n"
    whole(tmp_path / "out.jsonl")
    with (tmp_path / "out.jsonl").open("a") as stream:
        stream.write("more\n")
    with pytest.raises(ConfigError, match="was changed after it was complete"):
        begin(tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="is a directory"):
        begin(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        begin(tmp_path / "file" / "out.jsonl")
