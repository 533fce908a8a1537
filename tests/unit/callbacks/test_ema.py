"""The moving average: its closed form, where it is used, and that a resumed run goes on with it exactly."""

from __future__ import annotations

import lightning.pytorch as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning_nlp
from lightning_nlp.callbacks.ema import EMA
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run import manifest
from lightning_nlp.run.weights import read

RATE, DECAY = 0.25, 0.9


class Falling(L.LightningModule):
    """The gradient is always 1: weight w is w0 - RATE * t after t steps. A second name shares it, a third is frozen."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([8.0], dtype=dtype))
        self.shared = nn.Module()
        self.shared.weight = self.weight
        self.frozen = nn.Parameter(torch.tensor([3.0]), requires_grad=False)
        self.validated: list[float] = []
        self.validate_bits: list[int] = []

    def training_step(self, batch, batch_idx):
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append(float(self.weight))
        self.log("val/loss", self.weight.sum())

    def configure_optimizers(self):
        return torch.optim.SGD([self.weight], lr=RATE)


def rows(count=64):
    return DataLoader(TensorDataset(torch.zeros(count, 1)), batch_size=1)


def fit(root, ema, steps, module=None, ckpt_path=None, callbacks=(), **options):
    module = module or Falling()
    trainer = lightning_nlp.Trainer(
        max_steps=steps,
        default_root_dir=str(root),
        callbacks=[ema, *callbacks],
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        **{"validate_every": 4, "keep_last": 9, **options},
    )
    trainer.fit(module, rows(), rows(1), ckpt_path=ckpt_path)
    return module


def closed_form(step):
    """e_t - w_t = RATE d (1 - d^t) / (1 - d), from e_t = d e_(t-1) + (1 - d) w_t and e_0 = w_0."""
    return 8.0 - RATE * step + RATE * DECAY * (1 - DECAY**step) / (1 - DECAY)


def saved(root, step):
    return torch.load(root / "checkpoints" / f"step-{step}.ckpt", weights_only=True)


def test_closed_form_validation_and_what_is_saved(tmp_path):
    module = fit(tmp_path, EMA(DECAY, warmup=False), 8)
    assert module.validated == pytest.approx([closed_form(4), closed_form(8)], rel=1e-12)
    assert float(module.weight) == 8.0 - RATE * 8  # what the optimizer has stays
    for step in (4, 8):
        found = saved(tmp_path, step)
        assert found["state_dict"]["weight"].item() == 8.0 - RATE * step
        assert found["ema"]["weights"].keys() == {"weight", "shared.weight"}
        assert found["ema"]["weights"]["weight"].item() == pytest.approx(closed_form(step), rel=1e-12)
        assert found["ema"]["updates"] == step and found["ema"]["decay"] == DECAY
    newest = manifest.published(tmp_path / "checkpoints")[-1]
    assert newest.manifest["ema"] == {"decay": DECAY, "warmup": False, "every_n_steps": 1}
    used = read(newest.path.with_name("step-8.ckpt@ema"))["state_dict"]
    assert used["shared.weight"].item() == pytest.approx(closed_form(8)) and used["frozen"].item() == 3.0


def test_a_short_memory_at_first(tmp_path):
    """d is (1 + n) / (10 + n): 1/10, 2/11, 3/12 ..., at most the decay."""
    fit(tmp_path, EMA(0.2), 4)
    average = 8.0
    for step, decay in enumerate((1 / 10, 2 / 11, 0.2, 0.2), 1):
        average = decay * average + (1 - decay) * (8.0 - RATE * step)
    assert saved(tmp_path, 4)["ema"]["weights"]["weight"].item() == pytest.approx(average, rel=1e-12)


def test_every_n_steps(tmp_path):
    fit(tmp_path, EMA(DECAY, warmup=False, every_n_steps=3), 8)
    average = 8.0
    for step in (3, 6):
        average = DECAY * average + (1 - DECAY) * (8.0 - RATE * step)
    found = saved(tmp_path, 8)["ema"]
    assert found["updates"] == 2 and found["weights"]["weight"].item() == pytest.approx(average, rel=1e-12)


def test_accumulated_micro_batches_are_one_step(tmp_path):
    fit(tmp_path, EMA(DECAY, warmup=False), 4, accumulate_grad_batches=3)
    assert saved(tmp_path, 4)["ema"]["updates"] == 4


def test_narrow_weights_have_a_wide_average(tmp_path):
    fit(tmp_path, EMA(0.999, warmup=False), 4, Falling(torch.bfloat16))
    found = saved(tmp_path, 4)["ema"]["weights"]["weight"]
    assert found.dtype == torch.float32 and 7.99 < found.item() < 8.0  # bfloat16 has 7.97 and 8
    assert read(tmp_path / "checkpoints" / "step-4.ckpt@ema")["state_dict"]["weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("every", [1, 3])
def test_a_resumed_run_goes_on_exactly(tmp_path, every):
    fit(tmp_path / "whole", EMA(DECAY, every_n_steps=every), 12, Falling(torch.float32))
    fit(tmp_path / "parts", EMA(DECAY, every_n_steps=every), 5, Falling(torch.float32))
    again = fit(tmp_path / "parts", EMA(DECAY, every_n_steps=every), 12, Falling(torch.float32), ckpt_path="last")
    whole, parts = (saved(tmp_path / name, 12) for name in ("whole", "parts"))
    assert torch.equal(whole["ema"]["weights"]["weight"], parts["ema"]["weights"]["weight"])
    assert whole["ema"]["updates"] == parts["ema"]["updates"]
    assert torch.equal(whole["state_dict"]["weight"], parts["state_dict"]["weight"]) and len(again.validated) == 2


class SaveWithin(Callback):
    """What a signal during a validation does."""

    def on_validation_batch_end(self, trainer, *args, **kwargs):
        trainer.save_checkpoint(trainer.run_directory.checkpoints / "within.ckpt")


def test_saved_within_a_validation_each_has_its_place(tmp_path):
    fit(tmp_path, EMA(DECAY, warmup=False), 4, callbacks=[SaveWithin()])
    within, after = torch.load(tmp_path / "checkpoints" / "within.ckpt", weights_only=True), saved(tmp_path, 4)
    for part in (after["state_dict"], within["state_dict"]):
        assert part["weight"].item() == part["shared.weight"].item() == 7.0
    assert torch.equal(within["ema"]["weights"]["weight"], after["ema"]["weights"]["weight"])


class Breaking(Callback):
    def on_validation_batch_end(self, *args, **kwargs):
        raise ZeroDivisionError


def test_after_a_failed_validation_the_weights_are_back(tmp_path):
    module = Falling()
    with pytest.raises(ZeroDivisionError):
        fit(tmp_path, EMA(DECAY), 4, module, callbacks=[Breaking()])
    assert float(module.weight) == 7.0


class Narrow(Falling):
    """Under bf16-master, what is computed with."""

    def __init__(self) -> None:
        super().__init__(torch.float32)
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 8.0)

    def training_step(self, batch, batch_idx):
        return self.layer(torch.ones(1, 1, dtype=torch.bfloat16)).sum()

    def validation_step(self, batch, batch_idx):
        self.validated.append(float(self.layer(torch.ones(1, 1, dtype=torch.bfloat16))))

    def configure_optimizers(self):
        return torch.optim.SGD(self.layer.parameters(), lr=1.0)


def test_narrow_copies_notice_the_exchange(tmp_path):
    module = fit(tmp_path, EMA(0.5, warmup=False), 4, Narrow(), precision="bf16-master", validate_every=2)
    averages, average = {}, 8.0
    for step in range(1, 5):
        average = 0.5 * average + 0.5 * (8.0 - step)
        averages[step] = average
    assert module.validated == [averages[2], averages[4]]
    assert module.layer.weight.item() == 4.0


def test_a_checkpoint_of_other_weights_is_refused(tmp_path):
    fit(tmp_path, EMA(DECAY), 4)
    path = tmp_path / "checkpoints" / "step-4.ckpt"
    found = torch.load(path, weights_only=True)
    del found["ema"]["weights"]["weight"]
    torch.save(found, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="no moving average of weight"):
        fit(tmp_path, EMA(DECAY), 8, ckpt_path=tmp_path / "other.ckpt")


def test_begun_later_it_begins_with_the_weights_there_are(tmp_path, capsys):
    fit(tmp_path, Callback(), 4)
    fit(tmp_path, EMA(DECAY, warmup=False), 5, ckpt_path="last")
    expected = DECAY * 7.0 + (1 - DECAY) * 6.75
    assert saved(tmp_path, 5)["ema"]["weights"]["weight"].item() == pytest.approx(expected, rel=1e-12)
    assert "EMA: the checkpoint has no average, it begins at step 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"), [({"decay": 1.0}, "between 0 and 1"), ({"every_n_steps": 0}, "at least 1, not 0")]
)
def test_impossible_values(values, message):
    with pytest.raises(ConfigError, match=message):
        EMA(**values)


def test_there_is_one_average(tmp_path):
    with pytest.raises(ConfigError, match="holds EMA twice"):
        fit(tmp_path, EMA(0.9), 4, callbacks=[EMA(0.8)])
