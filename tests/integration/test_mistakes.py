"""Every configuration mistake: one line that names the key or the nearest right name, exit code 2, no run left behind."""

from __future__ import annotations

import pytest

from lightning_nlp.__main__ import main

pytestmark = pytest.mark.slow
RECIPE = {
    "model": "CausalLM",
    "backbone": "{n_layers: 1, d_model: 32, n_heads: 2, max_length: 64}",
    "extra": "",
}

FLAGS = {
    "misspelt flag": (["--trainer.max_stepz", "5"], "did you mean 'trainer.max_steps'"),
    "abbreviated flag": (["--trainer.max_step", "5"], "did you mean 'trainer.max_steps'"),
    "misspelt nested flag": (["--model.backbone.n_layerz", "1"], "did you mean 'model.backbone.n_layers'"),
    "wrong type": (["--trainer.max_steps", "many"], "trainer.max_steps must be int, got 'many'"),
    "wrong nested type": (["--model.optimizer.lr", "fast"], "model.optimizer.lr must be float, got 'fast'"),
    "missing config file": (["-c", "absent.yaml"], "config file 'absent.yaml' does not exist"),
    "unknown task": (["--model", "CausalML"], "did you mean 'CausalLM'"),
    "unknown size": (["--model.backbone.size", "nanoo"], "did you mean 'nano'"),
    "argument of another class": (["--model.pooling", "mean"], "it belongs to TextClassification"),
    "heads not dividing width": (["--model.backbone.n_heads", "3"], "n_heads 3 does not divide backbone.d_model 32"),
    "missing data file": (["--data.path", "absent.jsonl"], "data.path 'absent.jsonl' does not exist"),
    "empty glob": (["--data.path", "absent/*.txt"], "matches no files"),
    "missing column": (["--data.text_column", "txt"], "did you mean 'text'"),
    "init_from without weights": (["--init_from", "/"], "has no checkpoint to take weights from"),
    "init_from absent": (["--init_from", "absent"], "--init_from 'absent' does not exist"),
    "vocabulary mismatch": (["--model.backbone.vocab_size", "99"], "vocab_size is 99, the tokenizer has 260"),
    "max_epochs on packed rows": (
        ["--trainer.max_epochs", "2", "--trainer.max_steps", "null"],
        "packed rows do not end with an epoch",
    ),
    "two horizons": (["--trainer.max_tokens", "100"], "both say when to stop"),
    "no horizon": (["--trainer.max_steps", "null"], "say when to stop"),
    "accumulation beside global batch": (["--trainer.accumulate_grad_batches", "2"], "accumulation is derived from"),
    "validation in batches": (["--trainer.val_check_interval", "5"], "use trainer.validate_every"),
    "global batch not divisible": (["--data.micro_batch_size", "3"], "8 is not divisible by data.micro_batch_size 3"),
    "lanes and batch": (["--data.lanes", "3"], "one must divide the other"),
    "batch given twice": (["--data.global_batch_tokens", "256"], "say the same: give one"),
    "hardware that is not there": (["--trainer.accelerator", "gpu"], "gpu"),
    "unknown monitor": (["--trainer.monitor", "val/losss"], "did you mean 'val/loss'"),
    "unknown strategy": (["--trainer.strategy", "fsdp3"], "unknown trainer.strategy 'fsdp3'; did you mean 'fsdp2'?"),
    "strategy without its hardware": (["--trainer.strategy", "fsdp"], "needs a GPU, and there is none: fsdp2"),
    "processes that make no mesh": (
        ["--trainer.strategy", "tp_fsdp2", "--trainer.devices", "3"],
        "data_parallel_size 1 x tensor_parallel_size 2 are 2 processes, trainer.devices and num_nodes give 3",
    ),
    "float16 where it does not work": (
        ["--trainer.strategy", "fsdp2", "--trainer.precision", "16-mixed"],
        "16-mixed does not work with ModelParallel: take bf16-master",
    ),
    "unknown guard": (["--trainer.non_finite", "ignore"], "trainer.non_finite must be one of stop, skip"),
    "unknown precision": (["--trainer.precision", "17"], "trainer.precision must be one of"),
    "unwritable root": (["--root", "/dev/null"], "cannot create run directory"),
    "bad run name": (["--name", "../up"], "run name '../up' is not allowed"),
    "rows longer than the backbone": (["--data.max_length", "128"], "longer than backbone.max_length 64"),
    "unknown schedule": (["--model.schedule.name", "cosin"], "did you mean 'cosine'"),
    "momentum with adamw": (["--model.optimizer.momentum", "0.9"], "belongs to sgd, adafactor and muon"),
    "decay with cosine": (["--model.schedule.decay", "5"], "schedule.decay belongs to wsd"),
    "rule for nothing": (["--model.optimizer.groups", "[{match: atention}]"], "groups: 'atention' matches nothing"),
    "unknown sample": (["--data.path", "sample:stdlib_doc"], "did you mean 'stdlib_docs'"),
    "no duration": (["--trainer.time_budget", "soon"], "is no duration"),
    "wrong arrangement": (
        ["--model.backbone.arrangement", "encoder"],
        "backbone.arrangement is encoder, this task needs",
    ),
}

FILES = {
    "no list": ("data: {init_args: {filters: x}}", "data.filters must be list, got 'x'"),
    "misspelt key": (
        "model: {class_path: CausalLM, init_args: {backbone: {sizze: nano}}}",
        "did you mean 'model.backbone.size'",
    ),
    "misspelt rule": (
        "model: {init_args: {optimizer: {groups: [{match: '*norm*', lr_scle: 2}]}}}",
        "unknown key 'lr_scle'; did you mean 'lr_scale'",
    ),
    "duplicate key": ("trainer: {max_steps: 1}\ntrainer: {max_steps: 2}", "bad.yaml' line 2: duplicate key 'trainer'"),
    "duplicate nested key": ("trainer:\n  max_steps: 1\n  max_steps: 2", "bad.yaml' line 3: duplicate key 'max_steps'"),
    "syntax": ("trainer: {max_steps: 1\n", "bad.yaml' line"),
}


def complaint(capsys) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("run ")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("lightning-nlp: error: ")
    return lines[0]


@pytest.mark.parametrize("name", FLAGS)
def test_flag(name, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags, message = FLAGS[name]
    root = [] if "--root" in flags else ["--root", str(tmp_path)]
    assert main(["fit", "-c", str(tiny), *root, *flags]) == 2
    assert message in complaint(capsys)
    assert not list(tmp_path.glob("tiny/checkpoints"))


@pytest.mark.parametrize("name", FILES)
def test_file(name, tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, message = FILES[name]
    (tmp_path / "bad.yaml").write_text(content)
    assert main(["fit", "-c", str(tiny), "-c", "bad.yaml", "--root", str(tmp_path)]) == 2
    assert message in complaint(capsys)


def test_run_of_another_task(trained, samples, capsys):
    config = "configs/classification.yaml"
    assert main(["fit", "--run", str(trained), "-c", config]) == 2
    assert "has model CausalLM, this command asks for TextClassification" in complaint(capsys)


def test_no_run_directory(trained, capsys, tmp_path):
    assert main(["fit", "--run", str(tmp_path / "absent")]) == 2
    assert "there is no run at" in complaint(capsys)
    assert main(["validate", "--run", str(trained.parent / "rn")]) == 2
    assert "did you mean 'run'" in complaint(capsys)


def test_small_exponent_is_a_number(tiny, tmp_path, capsys):
    (tmp_path / "rate.yaml").write_text("model: {init_args: {optimizer: {lr: 1e-4}}}")
    assert main(["fit", "-c", str(tiny), "-c", str(tmp_path / "rate.yaml"), "--print_config"]) == 0
    assert "lr: 0.0001" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_evaluation_needs_a_run(verb, capsys):
    assert main([verb]) == 2
    assert f"{verb} needs --run RUN" in complaint(capsys)
