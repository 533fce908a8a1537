"""What a run says about its own speed: parts that add up, shares that can be recomputed, traces that open."""

from __future__ import annotations

import gzip
import json
import re

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_nlp.__main__ import main
from lightning_nlp.backbone.ceiling import matmul_flops
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.verification.history import lines

pytestmark = pytest.mark.slow
PARTS = {"data", "forward", "backward", "optimizer", "checkpoint", "logging"}


def test_numbers_of_a_run(tiny, tmp_path, capsys):
    import torch

    flags = ["--trainer.max_steps", "24", "--trainer.log_every_n_steps", "4", "--trainer.validate_every", "8"]
    assert main(["fit", "-c", str(tiny), "--root", str(tmp_path), "--name", "run", *flags]) == 0
    run, said = tmp_path / "run", capsys.readouterr().err
    written = [line for line in lines(run) if "train/loss" in line]
    assert [line["step"] for line in written] == [4, 8, 12, 16, 20, 24]
    tokens = 0
    for line in written:
        parts = {name.removeprefix("step_time/"): value for name, value in line.items() if name.startswith("step_time")}
        assert parts.keys() == PARTS and min(parts.values()) >= 0
        # Time in validations is in neither; the clocks are read one after the other.
        assert sum(parts.values()) == pytest.approx(line["speed/step_seconds"], rel=0.01, abs=2e-4)
        assert min(parts["forward"], parts["backward"], parts["optimizer"]) > 0
        assert line["speed/tokens_per_second"] * 4 * line["speed/step_seconds"] == pytest.approx(
            line["tokens"] - tokens
        )
        assert line["memory/resident_peak_bytes"] >= line["memory/resident_bytes"] > 50e6
        tokens = line["tokens"]
    last = written[-1]
    settings = {"n_layers": 1, "d_model": 32, "n_heads": 2, "max_length": 64}
    vocabulary = json.loads((run / "tokenizer.json").read_text())["model"]["vocab"]
    config = TransformerConfig(**settings, vocab_size=len(vocabulary))
    assert last["data/padding"] == 0  # full rows: the convention holds exactly
    rate = last["speed/tokens_per_second"]
    assert rate / last["speed/samples_per_second"] == pytest.approx(32)
    expected = config.flops_per_token(32) * rate / matmul_flops("cpu", torch.float32)
    assert last["speed/mfu_palm_measured"] == pytest.approx(expected, rel=1e-6)
    assert 0 < last["speed/mfu_causal_measured"] < last["speed/mfu_palm_measured"] < 1
    scalars = EventAccumulator(str(run)).Reload().Tags()["scalars"]
    assert {name for name in last if "/" in name} <= set(scalars)
    said = said[said.index("finished at step 24") :].splitlines()
    assert [line.split()[0] for line in said[1:]] == ["speed", "time", "MFU", "memory"]


def test_a_profile_of_steps(tiny, tmp_path, capsys):
    flags = ["--trainer.max_steps", "12", "--trainer.log_every_n_steps", "4", "--trainer.validate_every", "0"]
    command = ["fit", "-c", str(tiny), "--root", str(tmp_path), "--name", "run", *flags]
    assert main([*command, "--profile", "3"]) == 0
    said = capsys.readouterr().err
    (file,) = (tmp_path / "run" / "profile").iterdir()
    assert file.name == "step-6.rank-0.pt.trace.json.gz"
    # What TensorBoard's plugin looks for.
    assert re.search(r"^(.*?)(\.\d+)?\.pt\.trace\.json(?:\.gz)?$", file.name)
    trace = json.loads(gzip.decompress(file.read_bytes()))
    names = [event.get("name", "") for event in trace["traceEvents"]]
    assert len({name for name in names if name.startswith("ProfilerStep#")}) == 3
    assert "aten::addmm" in names or "aten::mm" in names
    assert f"profile of steps 6 to 8: {file}" in said and "ms/step" in said
    assert "USDT" not in said and "\nprofile:" not in (tmp_path / "run" / "config.fit.yaml").read_text()


@pytest.mark.parametrize("value", ["0", "-2", "some", "1.5"])
def test_a_profile_of_no_steps_is_refused_at_once(value, tiny, tmp_path, capsys):
    assert main(["fit", "-c", str(tiny), "--root", str(tmp_path), "--name", "run", f"--profile={value}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"lightning-nlp: error: --profile records a number of steps, at least 1, not '{value}'"
    assert not (tmp_path / "run").exists()


def test_a_profile_longer_than_the_run_is_refused(tiny, tmp_path, capsys):
    command = ["fit", "-c", str(tiny), "--root", str(tmp_path), "--name", "run", "--trainer.max_steps", "12"]
    assert main([*command, "--profile", "8"]) == 2
    said = capsys.readouterr().err
    assert "--profile 8 needs 13 steps, 5 of them warm-up; the run has 12 left" in said
    assert main([*command, "--profile", "7"]) == 0  # the name is free again


def test_two_ranks_wait_for_each_other(tiny, tmp_path):
    from tests.integration import runs

    flags = ["--trainer.max_steps", "12", "--trainer.log_every_n_steps", "4", "--trainer.validate_every", "0"]
    flags += ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--data.micro_batch_size", "2", "--profile", "3"]
    runs.run("fit", "-c", tiny, "--root", tmp_path, "--name", "run", *flags)
    written = [line for line in lines(tmp_path / "run") if "train/loss" in line]
    for line in written:
        parts = {name.removeprefix("step_time/"): value for name, value in line.items() if name.startswith("step_time")}
        assert parts.keys() == PARTS | {"communication"} and min(parts.values()) >= 0
    assert written[-1]["step_time/communication"] > 0
    names = {file.name for file in (tmp_path / "run" / "profile").iterdir()}
    assert names == {f"step-6.rank-{rank}.pt.trace.json.gz" for rank in (0, 1)}
