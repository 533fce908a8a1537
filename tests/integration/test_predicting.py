"""predict: killed and called again, on one process or two, the file is the same to the last byte; averages and EMA."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest
import torch

from lightning_nlp.callbacks.predictions import PredictionWriter
from lightning_nlp.cli.app import main
from tests.integration import runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Rows of very different lengths, some of them useless, some longer than the model (64 tokens)."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("texts") / "my.jsonl"
    with path.open("w") as stream:
        for number in range(400):
            text = " ".join(draw.choices(runs.WORDS, k=draw.choice([1, 3, 10, 40]))) if number % 50 else ""
            stream.write(json.dumps({"text": text}) + "\n" if number % 70 else "{broken\n")
    return path


def asked(trained, texts, output, *more):
    settings = ["--data.eval_batch_size", 4, "--model.generation.max_new_tokens", 12]
    return ["predict", "--run", trained, "--input", texts, "--output", output, *settings, *more]


@pytest.fixture(scope="module")
def whole(trained, texts, tmp_path_factory):
    """The file of a command that was left alone."""
    path = tmp_path_factory.mktemp("whole") / "out.jsonl"
    assert main([str(part) for part in asked(trained, texts, path)]) == 0
    return path


def killed(args, output, lines):
    """Start a command and end it, and all it started, once the output has so many lines."""
    process = runs.start(list(args), runs.environment())
    before = time.monotonic()
    while process.poll() is None and time.monotonic() - before < 200:
        if output.exists() and output.read_bytes().count(b"\n") >= lines:
            os.killpg(process.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    assert process.wait() == -signal.SIGKILL, process.stderr.read() if process.stderr else ""


def test_every_row_has_a_line(whole, texts):
    records = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [record["id"] for record in records] == [f"input:{number}" for number in range(400)]
    failed = [number for number, record in enumerate(records) if "error" in record]
    assert failed == sorted({*range(0, 400, 50), *range(0, 400, 70)})
    rest = [record for record in records if "error" not in record]
    assert all(record["log_likelihood"] < 0 and record["score"] < 0 for record in rest)
    assert max(record["tokens"] for record in rest) > 2 * 64  # in windows


def test_an_interrupt_keeps_what_is_there(trained, texts, whole, tmp_path, capsys, monkeypatch):
    output, write = tmp_path / "out.jsonl", PredictionWriter.on_predict_batch_end
    args = [str(part) for part in asked(trained, texts, output)]

    def interrupted(self, *given, **named):
        write(self, *given, **named)
        if self.written >= 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PredictionWriter, "on_predict_batch_end", interrupted)
        before = signal.getsignal(signal.SIGINT)
        assert main(args) == 130
        signal.signal(signal.SIGINT, before)  # which Lightning leaves ignored
    assert "lightning-nlp: interrupted: the same command goes on from here\n" in capsys.readouterr().err
    assert output.read_text().count("\n") == 12
    assert main(args) == 0 and output.read_bytes() == whole.read_bytes()


def test_killed_twice_it_is_the_same_file(trained, texts, whole, tmp_path, capsys):
    output = tmp_path / "out.jsonl"
    args = asked(trained, texts, output)
    killed(args, output, 20)
    first = output.read_bytes()
    assert whole.read_bytes().startswith(first[: first.rfind(b"\n") + 1]) and len(first) < whole.stat().st_size
    killed(args, output, first.count(b"\n") + 20)
    assert main([str(part) for part in args]) == 0
    assert output.read_bytes() == whole.read_bytes()
    assert "going on after" in (said := capsys.readouterr().err) and "400 predictions in" in said
    assert main([str(part) for part in args]) == 0
    assert "400 predictions in" in (said := capsys.readouterr().err) and "already: nothing to do" in said
    assert main([str(part) for part in [*args, "--model.generation.max_new_tokens", 3]]) == 2
    assert "model.generation.max_new_tokens is 12 there, 3 here" in capsys.readouterr().err
    assert output.read_bytes() == whole.read_bytes()


def test_two_processes_write_the_same_file(trained, texts, whole, tmp_path):
    output = tmp_path / "out.jsonl"
    args = asked(trained, texts, output, "--trainer.devices", 2, "--trainer.strategy", "ddp")
    killed(args, output, 20)
    runs.run(*args)
    assert output.read_bytes() == whole.read_bytes()


def test_n_best_on_request(trained, texts, tmp_path):
    texts = tmp_path / "few.txt"
    texts.write_text("the cat\nbirds flew\n")
    output = tmp_path / "out.jsonl"
    more = ["--model.generation.beams", 3, "--model.generation.n_best", 2, "--model.generation.temperature", 0]
    assert main([str(part) for part in asked(trained, texts, output, *more)]) == 0
    for record in map(json.loads, output.read_text().splitlines()):
        best, second = record["n_best"]
        assert best == {"text": record["prediction"], "score": record["score"]} and best["score"] >= second["score"]


def test_output_over_the_input_is_refused(trained, texts, capsys):
    assert main([str(part) for part in asked(trained, texts, texts)]) == 2
    assert "is the --input" in capsys.readouterr().err


@pytest.fixture(scope="module")
def several(corpus, tmp_path_factory):
    """A run that kept its last checkpoints, with a moving average."""
    root = tmp_path_factory.mktemp("several")
    config = runs.write_config(
        root / "tiny.yaml", corpus, max_steps=12, validate_every=4, checkpoint_every=4, keep_last=3
    )
    average = ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay", 0.8]
    assert main([str(part) for part in ["fit", "-c", config, "--root", root, "--name", "run", *average]]) == 0
    return root / "run"


def state(run, step, part):
    found = torch.load(run / "checkpoints" / f"step-{step}.ckpt", weights_only=True)
    return found["state_dict"] if part == "raw" else found["ema"]["weights"]


def test_every_verb_takes_averages(several, tmp_path, capsys):
    import lightning_nlp

    for part in ("raw", "ema"):
        found = lightning_nlp.load(several, f"average:last:3@{part}").state_dict()
        for name, value in found.items():
            expected = torch.stack([state(several, step, part)[name].double() for step in (4, 8, 12)]).mean(0)
            assert torch.equal(value, expected.to(value.dtype)), name
    capsys.readouterr()
    scores = {}
    for asked_for in ("last", "last@raw", "average:last:3", "average:best:2", "8"):
        assert main(["test", "--run", str(several), "--ckpt_path", asked_for]) == 0
        scores[asked_for] = json.loads((several / "reports" / "test.test.json").read_text())
    assert len({report["metrics"]["test/loss"] for report in scores.values()}) == 5
    assert scores["average:last:3"]["steps"] == [4, 8, 12] and scores["average:last:3"]["step"] == 12
    assert "weights:average of 3 ema (4, 8, 12)" in (said := capsys.readouterr()).out
    assert "average of 3 moving averages: steps 4, 8, 12" in said.err
    (tmp_path / "in.txt").write_text("the cat\n")
    predict = ["predict", "--run", str(several), "--input", str(tmp_path / "in.txt"), "--output", str(tmp_path / "out")]
    assert main([*predict, "--ckpt_path", "average:last:2"]) == 0
    assert main([*predict, "--ckpt_path", "average:last:3"]) == 2
    said = capsys.readouterr().err
    assert "checkpoint is average of 2 moving averages: steps 8, 12" in said and "steps 4, 8, 12" in said
    assert main(["fit", "--run", str(several), "--ckpt_path", "average:last:2"]) == 2
    assert "training goes on from one checkpoint" in capsys.readouterr().err


def test_validation_scores_are_those_of_the_moving_average(several):
    lines = [json.loads(line) for line in (several / "metrics.jsonl").read_text().splitlines()]
    logged = {line["step"]: line["val/loss"] for line in lines if "val/loss" in line}
    for step in (8, 12):
        assert main(["validate", "--run", str(several), "--ckpt_path", str(step)]) == 0
        report = json.loads((several / "reports" / "validate.validation.json").read_text())
        assert report["metrics"]["val/loss"] == pytest.approx(logged[step], rel=1e-6) and report["weights"] == "ema"
        assert main(["validate", "--run", str(several), "--ckpt_path", f"{step}@raw"]) == 0
        raw = json.loads((several / "reports" / "validate.validation.json").read_text())["metrics"]["val/loss"]
        assert raw != pytest.approx(logged[step], rel=1e-4)


def test_a_killed_run_on_two_ranks_has_the_same_average(corpus, tmp_path):
    config = runs.write_config(tmp_path / "tiny.yaml", corpus, max_steps=8, validate_every=4, checkpoint_every=3)
    more = ["--trainer.callbacks+=EMA", "--trainer.devices", 2, "--trainer.strategy", "ddp"]
    args = ["fit", "-c", config, *more, "--run"]
    runs.run(*args, tmp_path / "whole")
    killed([*args, tmp_path / "killed"], tmp_path / "killed" / "metrics.jsonl", 5)
    runs.run(*args, tmp_path / "killed")
    for part in ("raw", "ema"):
        one, other = (state(tmp_path / name, 8, part) for name in ("whole", "killed"))
        assert one.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_command_that_adds_an_average_adds_one_and_changes_nothing_of_the_training(corpus, tmp_path):
    config = runs.write_config(tmp_path / "tiny.yaml", corpus, max_steps=4, validate_every=2)
    args = ["fit", "-c", str(config), "--run"]
    for steps in ("3", "4"):  # the second time, the run's own configuration has it already
        more = ["--trainer.callbacks+=EMA", "--trainer.callbacks.decay", "0.8", "--trainer.max_steps", steps]
        assert main([*args, str(tmp_path / "average"), *more, "--model.schedule.name", "constant"]) == 0
    assert (tmp_path / "average" / "config.fit.yaml").read_text().count("EMA") == 1
    assert main([*args, str(tmp_path / "plain"), "--model.schedule.name", "constant"]) == 0
    one, other = (state(tmp_path / name, 4, "raw") for name in ("plain", "average"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
