"""`data inspect` over every recipe, and over data with everything wrong: what it says is what training would see."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lightning_nlp.__main__ import main
from lightning_nlp.tasks.base import TaskModule

pytestmark = pytest.mark.slow
CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))
FEW = ["--batches", "2", "--documents", "40", "--examples", "2", "--tokens", "40"]


@pytest.fixture
def no_model(monkeypatch, tmp_path):
    """Whoever builds a model fails, and so does who leaves something in the working directory."""

    def build(*args, **kwargs):
        raise AssertionError("a model was built")

    monkeypatch.setattr(TaskModule, "__init__", build)
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.glob("runs*"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_shown(recipe, samples, no_model, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main(["data", "inspect", "-c", str(recipe), *FEW, "--json", str(report)]) == 0
    captured = capsys.readouterr()
    text, found = captured.out, json.loads(report.read_text())
    assert "\x1b" not in text and "\x1b" not in captured.err  # no terminal: neither colours nor progress
    assert {line.split()[0] for line in text.splitlines() if line[:1] not in (" ", "")} >= {"data", "tokenizer", "documents", "batches", "row"}  # fmt: skip
    assert len(found["rows"]) == 2 and found["batches"]["count"] == 2
    batches, documents = found["batches"], found["documents"]
    assert 0 <= batches["padding"] < 0.7 and documents["dropped"] == 0 and documents["bad"] == {}
    assert 0 < documents["vocabulary_used"] <= 1 and 0.5 < documents["bytes_per_token"] < 10
    for name in ("tokens_per_example", "source_tokens_per_example"):
        if (spread := documents[name]) is not None:
            assert 0 < spread["min"] <= spread["median"] <= spread["p95"] <= spread["max"]
            assert spread["min"] <= spread["mean"] <= spread["max"]
    assert sum(bin["count"] for bin in documents["histogram"]) == documents["examples"] >= documents["sampled"]
    for row in found["rows"]:
        assert row["ids"] and len(row["tokens"]) == len(row["segments"]) == len(row["token_ids"]) > 0
        assert all(row["ids"][0] in text for row in found["rows"])
        if row["labels"] is None:
            if (numbers := batches["numbers"]) is not None:
                assert numbers["min"] - 1e-4 <= float(row["label"]) <= numbers["max"] + 1e-4
            else:
                assert set(row["label"].split(", ") if row["label"] else ["none"]) <= set(batches["labels"])
        else:
            assert 0 < sum(label is not None for label in row["labels"]) <= len(row["labels"]) == len(row["tokens"])
            assert 0 < batches["supervised"] <= 1
    assert all(split["rows"] > 0 and split["bytes"] > 0 and split["ids"] for split in found["splits"].values())


def write(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def config(tmp_path):
    """A configuration of a language model over a file of its own."""

    def make(rows: list, **settings) -> str:
        lines = {"tokenizer": "{kind: byte}", "max_length": 16, "global_batch_size": 2, "lanes": 2, **settings}
        body = "".join(f"    {name}: {value}\n" for name, value in lines.items())
        file = tmp_path / "config.yaml"
        file.write_text(
            "model: {class_path: CausalLM, init_args: {backbone: {size: nano}}}\n"
            f"data:\n  class_path: CausalLMData\n  init_args:\n    path: {write(tmp_path / 'train.jsonl', rows)}\n{body}"
        )
        return str(file)

    return make


def test_what_is_wrong_with_rows_is_counted_and_shown(config, tmp_path, capsys):
    good = [{"id": f"d{number}", "text": "ab" * (1 + number % 7)} for number in range(40)]
    rows = [*good[:20], '{"text": "broken', {"text": 7}, {"text": ""}, *good[20:]]
    file = config(rows, bad_rows="skip", bad_rows_budget=10, validation_fraction=0.0)
    assert main(["data", "inspect", "-c", file, "--batches", "3", "--json", str(tmp_path / "r.json")]) == 0
    found, out = json.loads((tmp_path / "r.json").read_text()), capsys.readouterr().out
    documents = found["documents"]
    assert found["splits"]["train"]["rows"] == documents["sampled"] == 43 and documents["complete"]
    assert documents["bad"] == {"malformed_json": 1 / 43, "wrong_type": 1 / 43} and documents["dropped"] == 1 / 43
    assert f"{tmp_path / 'train.jsonl'} row 21: malformed JSON" in documents["faults"]["malformed_json"]
    assert documents["faults"]["malformed_json"] in out and "2.3 % wrong_type" in out
    assert found["splits"]["train"]["bytes"] == sum(len(row["text"]) for row in good)
    spread = documents["tokens_per_example"]  # <bos> text, with the label one further
    assert (spread["min"], spread["max"], documents["tokens_per_byte"]) == (3, 15, 1.0)


def test_rows_are_those_of_training(config, capsys):
    """Two texts of known bytes: inputs, labels one further, documents told apart, nothing else."""
    file = config([{"id": "x", "text": "abc"}, {"id": "y", "text": "de"}] * 8, lanes=1, global_batch_size=1, shuffle="false", validation_fraction=0.0)  # fmt: skip
    assert main(["data", "inspect", "-c", file, "--examples", "1", "--batches", "1", "--json", "-"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["tokens"] == ["<bos>", *"abc", "<bos>", *"de", "<bos>", *"abc", "<bos>", *"de", "<bos>", "a"]
    assert row["labels"] == [*"abc", "<eos>", *"de", "<eos>", *"abc", "<eos>", *"de", "<eos>", "a", "b"]
    assert row["segments"] == [1] * 4 + [2] * 3 + [3] * 4 + [4] * 3 + [5] * 2
    assert row["ids"] == ["x", "y", "x", "y", "x"] and row["padding"] == 0
    assert main(["data", "inspect", "-c", file, "--examples", "1", "--batches", "1"]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert "  input     <bos> a b c    │<bos> d e    │<bos> a b c    │<bos> d e    │<bos> a" in lines
    assert "  label     a     b c <eos>│d     e <eos>│a     b c <eos>│d     e <eos>│a     b" in lines


def test_a_terminal_gets_colours(config, capsys, monkeypatch):
    file = config([{"text": "some text"}] * 20)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert main(["data", "inspect", "-c", file, "--batches", "1"]) == 0
    assert "\x1b[1;34mtokenizer" in capsys.readouterr().out


def test_a_stream_has_no_known_number_of_rows(config, capsys):
    file = config([{"text": f"text {number}"} for number in range(30)], streaming="true", validation_fraction=0.2)
    assert main(["data", "inspect", "-c", file, "--batches", "2", "--documents", "10"]) == 0
    out = capsys.readouterr().out
    assert "train       a stream, no known number of rows" in out and "a sample of 10 rows of train" in out


def test_a_run_is_shown_with_its_own_tokenizer(trained, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    assert main(["data", "inspect", "--run", str(trained), *FEW, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

    assert found["tokenizer"]["hash"] == Tokenizer.load(trained / "tokenizer.json").hash
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 2, "data inspect needs -c CONFIG or --run RUN"),
        (["-c", "absent.yaml"], 2, "config file 'absent.yaml' does not exist"),
        (["-c", "CONFIG", "--exmples", "1"], 2, "unknown key 'exmples'; did you mean"),
        (["-c", "CONFIG", "--batches", "0"], 2, "--batches must be at least 1, not 0"),
        (["-c", "CONFIG", "--data.max_length", "0"], 2, "data.max_length must be at least 1, not 0"),
        (["-c", "CONFIG", "--data.max_lenth", "8"], 2, "unknown key 'data.max_lenth'; did you mean 'data.max_length'?"),
        (["-c", "CONFIG", "--data.path", "/nowhere"], 2, "data.path '/nowhere' does not exist"),
        (["-c", "CONFIG", "--data.text_column", "txt"], 2, "did you mean 'text'?"),
        (["-c", "CONFIG", "--data.global_batch_size", "3"], 2, "data.global_batch_size 3"),
        (["-c", "CONFIG", "--json", "/proc/x/r.json"], 2, "--json '/proc/x/r.json' cannot be written"),
        (["-c", "CONFIG", "--data.bad_rows", "error"], 1, "row 21: malformed JSON"),
    ],
)
def test_mistakes_are_one_line(options, code, message, config, capsys):
    rows = [{"text": f"text {number}"} for number in range(40)]
    if "error" in options:
        rows.insert(20, '{"text": "broken')
    file = config(rows)
    assert main(["data", "inspect", *(file if option == "CONFIG" else option for option in options)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lightning-nlp: error: ") and message in line
