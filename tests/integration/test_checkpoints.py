"""Checkpoints are plain data, rebuild their model alone, and refuse what does not belong to them."""

from __future__ import annotations

import shutil

import pytest
import torch

import lightning_nlp
from lightning_nlp.cli.app import main
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run import manifest

pytestmark = pytest.mark.slow


def newest(run):
    return manifest.published(run / "checkpoints")[-1]


def test_loads_under_weights_only_and_by_plain_lightning(trained):
    path = newest(trained).path
    saved = torch.load(path, weights_only=True)
    assert saved["hyper_parameters"]["backbone"]["vocab_size"] == 260 and saved["global_step"] == 10
    module = lightning_nlp.CausalLM.load_from_checkpoint(path, weights_only=True)
    assert module.config.d_model == 32
    torch.testing.assert_close(module.state_dict(), saved["state_dict"])


def test_load_gives_a_model_ready_to_generate(trained):
    module = lightning_nlp.load(trained)
    (new,) = module.head.continuations(
        module.backbone, [module.head.encode_prompt("the ")], lightning_nlp.GenerationConfig(max_new_tokens=4)
    )
    assert len(new) <= 4 and isinstance(module.head.tokenizer.decode(new), str)
    for wrong in ("last", "10"):
        torch.testing.assert_close(
            lightning_nlp.load(trained, wrong).state_dict(), lightning_nlp.load(newest(trained).path).state_dict()
        )
    with pytest.raises(ConfigError, match="no checkpoint of step 3"):
        lightning_nlp.load(trained, "3")


class Evil:
    def __reduce__(self):
        return (print, ("arbitrary code ran",))


def test_malicious_pickle_is_refused_not_run(trained, tmp_path, capsys):
    run = tmp_path / "evil"
    shutil.copytree(trained, run)
    checkpoint = newest(run)
    partial = manifest.partial_path(checkpoint.path)
    torch.save({"state_dict": {}, "x": Evil()}, partial)
    manifest.publish(partial, checkpoint.path, checkpoint.manifest)
    with pytest.raises(CheckpointError, match="cannot read"):
        lightning_nlp.load(run, "last")
    assert main(["fit", "--run", str(run), "--trainer.max_steps", "12"]) == 1
    assert "arbitrary code ran" not in capsys.readouterr().out


def test_checkpoint_of_another_model_is_named(trained, tmp_path, capsys):
    run = tmp_path / "other"
    shutil.copytree(trained, run)
    assert main(["fit", "--run", str(run), "--model.backbone.n_layers", "2", "--trainer.max_steps", "12"]) == 1
    assert "the checkpoint has backbone.n_layers 1, this configuration 2" in capsys.readouterr().err
    assert main(["fit", "--run", str(run), "--trainer.max_steps", "11"]) == 0  # what was refused was not kept


def test_tokenizer_of_another_run_is_refused(trained, tmp_path, capsys):
    run = tmp_path / "swapped"
    shutil.copytree(trained, run)
    text = (run / "tokenizer.json").read_text()
    (run / "tokenizer.json").write_text(
        text.replace('"a":', '"TEMP":').replace('"b":', '"a":').replace('"TEMP":', '"b":')
    )
    assert main(["validate", "--run", str(run)]) == 1
    assert "not the tokenizer this checkpoint was trained with" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="not the tokenizer"):
        lightning_nlp.load(run)


def test_changed_learning_rate_is_applied_on_resume(trained, tmp_path):
    run = tmp_path / "rate"
    shutil.copytree(trained, run)
    args = [
        "fit",
        "--run",
        str(run),
        "--trainer.max_steps",
        "12",
        "--model.optimizer.lr",
        "0.5",
        "--model.schedule.name",
    ]
    assert main([*args, "constant"]) == 0
    saved = torch.load(newest(run).path, weights_only=True)
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5


def test_init_from_takes_weights_and_tokenizer_and_refuses_another_shape(trained, tmp_path, corpus, capsys):
    config = tmp_path / "fresh.yaml"
    config.write_text((trained.parent / "tiny.yaml").read_text())
    args = ["fit", "-c", str(config), "--root", str(tmp_path), "--init_from", str(trained)]
    settings = ["--trainer.max_steps", "1", "--model.optimizer.lr", "1e-12", "--model.optimizer.weight_decay", "0"]
    assert main([*args, "--name", "child", *settings]) == 0
    before = torch.load(newest(trained).path, weights_only=True)["state_dict"]
    after = torch.load(newest(tmp_path / "child").path, weights_only=True)["state_dict"]
    torch.testing.assert_close(after, before)
    assert (tmp_path / "child" / "tokenizer.json").read_text() == (trained / "tokenizer.json").read_text()
    assert main([*args, "--name", "wider", "--model.backbone.d_model", "64"]) == 2
    assert "backbone.d_model is 64, but --init_from has 32" in capsys.readouterr().err
    assert main([*args, "--run", str(tmp_path / "child")]) == 2
    assert "--init_from starts a run" in capsys.readouterr().err


def test_damaged_checkpoint_asked_for_by_name_is_refused(trained, tmp_path, capsys):
    run = tmp_path / "named"
    shutil.copytree(trained, run)
    path = newest(run).path
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["validate", "--run", str(run), "--ckpt_path", str(path)]) == 1
    assert "checkpoint at step 10 is damaged (step-10.ckpt has" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="step 10 is damaged"):
        lightning_nlp.load(run, "10")
