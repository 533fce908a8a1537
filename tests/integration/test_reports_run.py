"""validate and test leave a report, the same on any number of ranks; pictures, and training that does not notice them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_nlp.__main__ import main
from lightning_nlp.callbacks import pictures
from tests.integration import runs

pytestmark = pytest.mark.slow
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A classification of sentences by their first word, trained for a few steps with pictures."""
    root = tmp_path_factory.mktemp("reports")
    texts = root / "texts"
    texts.mkdir()
    draw = np.random.default_rng(0)
    for split, size in (("train", 80), ("validation", 61), ("test", 9)):
        with (texts / f"{split}.jsonl").open("w") as stream:
            for number in range(size):
                words = draw.choice(runs.WORDS[:6], int(draw.choice([1, 3, 8]))).tolist()
                row = {"id": f"{split}-{number}", "text": " ".join(words), "label": words[0]}
                stream.write(json.dumps(row) + "\n")
    config = root / "tiny.yaml"
    config.write_text(
        f"""
model:
  class_path: TextClassification
  init_args:
    backbone: {{arrangement: encoder, n_layers: 2, d_model: 32, n_heads: 2, max_length: 64, dropout: 0.1}}
data:
  class_path: TextClassificationData
  init_args: {{path: {texts}, tokenizer: {{kind: byte}}, global_batch_size: 8, micro_batch_size: 4, lanes: 2, max_length: 64}}
trainer: {{max_steps: 4, validate_every: 2, log_every_n_steps: 1, accelerator: cpu, devices: 1}}
"""
    )
    for name, more in (("plain", []), ("run", ["--trainer.callbacks+=Pictures", "--trainer.callbacks.layers=[0,-1]"])):
        assert main(["fit", "-c", str(config), "--root", str(root), "--name", name, *more]) == 0
    return root / "run"


def test_pictures_in_tensorboard_and_nothing_else_changed(directory):
    events = EventAccumulator(str(directory)).Reload()
    images = {f"classification/attention_encoder_self_layer_{layer}/{row}" for layer in (0, 1) for row in (0, 1)}
    assert set(events.Tags()["images"]) == images | {"classification/confusion"}
    assert [event.step for event in events.Images("classification/confusion")] == [2, 4]
    assert runs.history(directory) == runs.history(directory.with_name("plain"))


def test_reports_of_one_and_two_ranks(directory, capsys):
    assert main(["validate", "--run", str(directory), "--trainer.callbacks", "null"]) == 0
    said = capsys.readouterr()
    assert "val/mcc" in said.out and f"{directory}/reports/validate.validation.md" in said.err
    one = json.loads((directory / "reports" / "validate.validation.json").read_text())
    ranks = ("--trainer.devices", 2, "--trainer.strategy", "ddp", "--trainer.callbacks", "null")
    runs.run("validate", "--run", directory, *ranks)
    two = json.loads((directory / "reports" / "validate.validation.json").read_text())
    weights = {"checkpoint", "step", "steps", "weights", "said"}
    assert set(one) == {*weights, "metrics", "signatures", "details", "examples"}
    assert one["details"] == two["details"] and one["signatures"] == two["signatures"]
    assert sum(row["support"] for row in one["details"]["classification"].values()) == 61
    for side in ("worst", "random"):
        first, second = ({row["id"]: row for row in found["examples"]["classification"][side]} for found in (one, two))
        assert list(first) == list(second) and len(first) == 20
        for name, row in first.items():
            assert row["score"] == pytest.approx(second[name]["score"], rel=1e-4)
            assert row["text"].split()[0] == row["target"]
            assert row["prediction"] == second[name]["prediction"]
    scores = [row["score"] for row in one["examples"]["classification"]["worst"]]
    assert scores == sorted(scores, reverse=True)


def test_without_a_logger_pictures_are_files(directory):
    assert main(["test", "--run", str(directory)]) == 0
    found = {path.name for path in (directory / "reports").glob("test.*.png")}
    assert found == {"test.classification.confusion.png"} | {
        f"test.classification.attention_encoder_self_layer_{layer}.{row}.png" for layer in (0, 1) for row in (0, 1)
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trainer.callbacks+=Picture"], "there is no class 'Picture'; did you mean 'Pictures'?"),
        (["--trainer.callbacks+=Pictures", "--trainer.callbacks.layers=[2]"], "there is no layer 2, the model has 2"),
        (["--trainer.callbacks+=Pictures", "--trainer.callbacks.attention=-1"], "attention must be 0 or more"),
    ],
)
def test_mistakes(directory, arguments, message, capsys):
    assert main(["test", "--run", str(directory), "--trainer.callbacks", "null", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_matplotlib(directory, monkeypatch, capsys):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    assert main(["test", "--run", str(directory)]) == 2
    assert "pip install 'lightning_nlp[pictures]'" in capsys.readouterr().err
