"""`trainer.precision bf16-master`, `compile` and `tune_allocator`: learns as float32 does, saves float32, resumes exactly."""

from __future__ import annotations

from statistics import mean

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.strategies import ModelParallelStrategy

import lightning_nlp
from lightning_nlp.__main__ import main
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.optimizers import OptimizerConfig
from lightning_nlp.run import allocator, manifest
from tests.integration import runs

pytestmark = pytest.mark.slow
SHAPE = {"n_layers": 2, "d_model": 32, "n_heads": 2, "max_length": 64}


def fit(corpus, directory, steps=60, ckpt_path=None, micro=8, dropout=0.1, **trainer):
    """A tiny language model; ``(module, {step: train loss}, {step: gradient norm}, {step: validation loss})``."""
    torch.manual_seed(0)
    backbone = lightning_nlp.TransformerConfig(**SHAPE, dropout=dropout)
    schedule = lightning_nlp.ScheduleConfig(warmup=10)
    module = lightning_nlp.CausalLM(backbone, OptimizerConfig(lr=0.003), schedule, sample_prompts=[])
    data = lightning_nlp.CausalLMData(
        str(corpus),
        tokenizer=lightning_nlp.TokenizerConfig(kind="byte"),
        max_length=64,
        global_batch_size=8,
        micro_batch_size=micro,
    )
    settings = {
        "max_steps": steps,
        "validate_every": 20,
        "log_every_n_steps": 1,
        "gradient_clip_val": 1.0,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "logger": False,
    }
    run = lightning_nlp.Trainer(**{**settings, **trainer}, default_root_dir=str(directory))
    run.fit(module, datamodule=data, ckpt_path=ckpt_path)
    values = runs.history(directory)
    names = ("train/loss", "train/grad_norm", "val/loss")
    return module, *({step: value for (step, key), value in values.items() if key == name} for name in names)


class Stop(L.Callback):
    """Ends training without a save, as a kill would."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            raise Killed


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def master(corpus, tmp_path_factory):
    directory = tmp_path_factory.mktemp("master")
    return directory, fit(corpus, directory, precision="bf16-master")


def test_learns_within_a_band_of_float32(corpus, tmp_path):
    """0.3 % of the loss at every step and validation, while it falls from 5.6 to 2.5 (without dropout: 0.06 % seen, bf16
    autocast 0.24 %); gradient norms before clipping 15 %."""
    _, losses, norms, validations = fit(corpus, tmp_path / "wide", dropout=0.0)
    _, *found = fit(corpus, tmp_path / "master", dropout=0.0, precision="bf16-master")
    assert losses[1] > 5.5 and losses[60] < 2.55
    assert found[0] != losses  # it does compute in bfloat16
    assert found[0] == pytest.approx(losses, rel=0.003)
    assert found[1] == pytest.approx(norms, rel=0.15)
    assert found[2] == pytest.approx(validations, rel=0.003)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_autocast_learns_within_a_band_of_float32(precision, corpus, tmp_path):
    """1 % of the loss at every step; gradient norms, from which a loss scale has been taken off, 1 % of the first 20.

    Later, single norms part with the trajectories (31 % seen at a step); their mean stays within 3 %.
    """
    _, losses, norms, validations = fit(corpus, tmp_path / "wide", dropout=0.0)
    _, *found = fit(corpus, tmp_path / "narrow", dropout=0.0, precision=precision)
    assert found[0] != losses
    assert found[0] == pytest.approx(losses, rel=0.01)
    first = {step: norm for step, norm in norms.items() if step <= 20}
    assert {step: found[1][step] for step in first} == pytest.approx(first, rel=0.01)
    assert mean(found[1].values()) == pytest.approx(mean(norms.values()), rel=0.03)
    assert found[2] == pytest.approx(validations, rel=0.01)


def test_checkpoints_hold_the_float32_masters(master, tmp_path):
    directory, (module, *_) = master
    saved = torch.load(directory / "checkpoints" / "step-60.ckpt", weights_only=True)
    torch.testing.assert_close(saved["state_dict"], dict(module.state_dict()), rtol=0, atol=0)
    for name, value in saved["state_dict"].items():
        assert value.dtype == torch.float32, name
        assert not torch.equal(value, value.bfloat16().float()) or not value.any(), name  # never rounded
    moments = [value for state in saved["optimizer_states"][0]["state"].values() for value in state.values()]
    assert moments and all(value.dtype == torch.float32 for value in moments)
    loaded = lightning_nlp.load(directory, "last")
    torch.testing.assert_close(dict(loaded.state_dict()), saved["state_dict"], rtol=0, atol=0)
    tokens = torch.arange(20)[None]
    assert loaded.backbone(tokens).dtype == torch.float32


def test_resumes_bit_for_bit(master, corpus, tmp_path):
    directory, (module, losses, norms, validations) = master
    with pytest.raises(Killed):
        fit(corpus, tmp_path, precision="bf16-master", checkpoint_every=7, callbacks=[Stop(30)])
    assert manifest.published(tmp_path / "checkpoints")[-1].step == 28
    again, *found = fit(corpus, tmp_path, precision="bf16-master", checkpoint_every=7, ckpt_path="last")
    assert found == [losses, norms, validations]
    torch.testing.assert_close(dict(again.state_dict()), dict(module.state_dict()), rtol=0, atol=0)


def test_accumulation_is_in_float32(master, corpus, tmp_path):
    """Four micro-batches of a step: the gradient norm is that of one batch, to bfloat16's rounding of activations."""
    _, (_, losses, norms, _) = master
    _, found, found_norms, _ = fit(corpus, tmp_path, steps=4, micro=2, precision="bf16-master")
    assert found[1] == pytest.approx(losses[1], rel=1e-3)
    assert found_norms[1] == pytest.approx(norms[1], rel=0.05)  # dropout differs


def test_two_ranks_learn_what_one_does(tiny, tmp_path):
    common = ("--model.backbone.dropout", 0, "--trainer.validate_every", 4, "--trainer.precision", "bf16-master")
    ranks = ("--trainer.devices", 2, "--trainer.strategy", "ddp")
    runs.run("fit", "-c", tiny, "--root", tmp_path, "--name", "one", *common, "--trainer.max_steps", 8)
    runs.run("fit", "-c", tiny, "--root", tmp_path, "--name", "two", *common, *ranks, "--trainer.max_steps", 8)
    one, two = runs.history(tmp_path / "one"), runs.history(tmp_path / "two")
    for key, value in one.items():
        expected = value if key[1] in ("ids", "tokens") else pytest.approx(value, rel=2e-3)
        assert two[key] == expected, key
    saved = torch.load(tmp_path / "two" / "checkpoints" / "step-8.ckpt", weights_only=True)["state_dict"]
    assert all(value.dtype == torch.float32 for value in saved.values())
    assert not any("module." in name for name in saved)


def test_other_precisions_can_go_on_from_it(master, corpus, tmp_path):
    """Nothing in the checkpoint says how it was computed."""
    directory, (_, losses, *_) = master
    newest = manifest.published(directory / "checkpoints")[-1].path
    _, found, *_ = fit(corpus, tmp_path, steps=64, ckpt_path=str(newest))
    assert sorted(found) == [61, 62, 63, 64] and max(found.values()) < losses[30]


REFUSED = [
    ("bf16-mastr", r"unknown trainer.precision 'bf16-mastr'; did you mean 'bf16-master'\?"),
    ("17", r"unknown trainer.precision '17' \(known: 32-true, bf16-master, "),
]


@pytest.mark.parametrize(("precision", "message"), REFUSED)
def test_unknown_precisions_name_the_nearest(precision, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        lightning_nlp.Trainer(precision=precision, max_steps=1, default_root_dir=str(tmp_path))


def test_the_command_line_knows_it(tiny, tmp_path, capsys):
    assert main(["fit", "-c", str(tiny), "--root", str(tmp_path), "--trainer.precision", "bf16-mastr"]) == 2
    assert "trainer.precision must be one of 32-true, bf16-master, " in (error := capsys.readouterr().err)
    assert "got 'bf16-mastr'; did you mean 'bf16-master'?" in error
    for given, shown in (("bf16-master", "bf16-master"), ("32", "32"), ("bf16-mixed", "bf16-mixed")):
        assert main(["fit", "-c", str(tiny), "--trainer.precision", given, "--print_config"]) == 0
        assert f"precision: {shown}" in capsys.readouterr().out.replace("'", "")


def test_strategies_that_shard_parameters_are_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="works on one device, with ddp, fsdp2 and tp, not with ModelParallelStrategy"
    ):
        lightning_nlp.Trainer(
            precision="bf16-master",
            max_steps=1,
            accelerator="cpu",
            strategy=ModelParallelStrategy(),
            default_root_dir=str(tmp_path),
        )


def test_blocks_compiled_in_place(corpus, tmp_path, master):
    """The eager backend runs the captured graphs as they are: numbers and names hold, a resume needs no compilation."""
    directory, (module, losses, *_) = master
    settings = {"precision": "bf16-master", "checkpoint_every": 2}
    compiled, found, *_ = fit(corpus, tmp_path, steps=2, compile="blocks", compile_backend="eager", **settings)
    assert all(block._compiled_call_impl is not None for block in compiled.backbone.decoder.layers)
    saved = torch.load(tmp_path / "checkpoints" / "step-2.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == dict(module.state_dict()).keys()
    assert [found[1], found[2]] == pytest.approx([losses[1], losses[2]], rel=5e-3)
    _, further, *_ = fit(corpus, tmp_path, steps=3, ckpt_path="last", **settings)
    assert further[3] == pytest.approx(losses[3], rel=5e-3)


def test_compiling_needs_blocks(tmp_path):
    class Own(L.LightningModule):
        def training_step(self, batch, batch_idx): ...

        def configure_optimizers(self): ...

        def train_dataloader(self):
            return [1]

    trainer = lightning_nlp.Trainer(
        max_steps=1, compile="blocks", accelerator="cpu", logger=False, default_root_dir=str(tmp_path)
    )
    with pytest.raises(ConfigError, match=r"trainer\.compile blocks: this model has no block"):
        trainer.fit(Own())


def test_the_allocator_is_left_alone_unless_asked(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(allocator, "tune", lambda: asked.append(1) or "trainer.tune_allocator: not here")
    lightning_nlp.Trainer(max_steps=1, accelerator="cpu", default_root_dir=str(tmp_path))
    assert not asked
    lightning_nlp.Trainer(max_steps=1, accelerator="cpu", tune_allocator=True, default_root_dir=str(tmp_path))
    assert asked and capsys.readouterr().err.count("trainer.tune_allocator: not here") == 1
