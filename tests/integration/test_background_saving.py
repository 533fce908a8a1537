"""Checkpoints written while training goes on hold what the model was when they were asked for."""

from __future__ import annotations

import time

import lightning.pytorch as L
import pytest
import torch

import lightning_nlp
from lightning_nlp.errors import ConfigError
from lightning_nlp.run import checkpoint_io, manifest
from tests.integration import runs


def fit(corpus, directory, callbacks=(), **trainer):
    settings = {"max_steps": 12, "validate_every": 6, "callbacks": list(callbacks), **trainer}
    runs.fit_language_model(corpus, directory, dropout=0.1, **settings)
    return {found.step: found for found in manifest.published(directory / "checkpoints")}


class Steps(L.Callback):
    def __init__(self):
        self.at = {}

    def on_train_batch_end(self, trainer, *args):
        self.at[trainer.global_step] = time.monotonic()


def test_the_same_checkpoints_and_no_waiting(corpus, tmp_path, monkeypatch):
    plain = fit(corpus, tmp_path / "plain")
    saves, steps = [], Steps()

    def slow(checkpoint, path, save=torch.save):
        time.sleep(0.5)
        save(checkpoint, path)
        saves.append((checkpoint["global_step"], time.monotonic()))

    monkeypatch.setattr(checkpoint_io.torch, "save", slow)
    found = fit(corpus, tmp_path / "background", [steps], async_checkpoints=True)
    assert sorted(found) == sorted(plain) == [4, 6, 8, 12]
    assert steps.at[5] < dict(saves)[4]  # the next step was done before the file was
    for step, checkpoint in found.items():
        assert checkpoint.damage() is None
        ours, theirs = (torch.load(item.path, weights_only=True) for item in (checkpoint, plain[step]))
        for name, value in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][name], value), (step, name)
        for index, values in theirs["optimizer_states"][0]["state"].items():
            for key, value in values.items():
                assert torch.equal(ours["optimizer_states"][0]["state"][index][key], value)


def test_an_error_of_the_thread_ends_the_run(corpus, tmp_path, monkeypatch):
    def full(checkpoint, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_io.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        fit(corpus, tmp_path, async_checkpoints=True)
    assert not manifest.published(tmp_path / "checkpoints")


def test_minutes_count_beside_steps(corpus, tmp_path, monkeypatch):
    clock = iter(range(0, 100000, 10))
    monkeypatch.setattr("lightning_nlp.callbacks.checkpoints.time.monotonic", lambda: next(clock))
    found = fit(corpus, tmp_path, checkpoint_every=0, validate_every=0, checkpoint_every_minutes=0.5)
    assert len(found) >= 3 and 12 in found
    with pytest.raises(ConfigError, match="checkpoint_every_minutes must be a positive number, not 0"):
        lightning_nlp.Trainer(max_steps=1, checkpoint_every_minutes=0, default_root_dir=str(tmp_path))


class Fail(L.Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 5:
            raise RuntimeError("somebody's mistake")


def test_a_run_that_fails_finishes_its_checkpoint_first(corpus, tmp_path, monkeypatch):
    """Else the thread would write that the run is running after all had been said about it."""
    published = manifest.publish

    def slow(*args):
        time.sleep(1.0)
        return published(*args)

    monkeypatch.setattr(manifest, "publish", slow)
    with pytest.raises(RuntimeError, match="somebody's mistake"):
        fit(corpus, tmp_path, [Fail()], async_checkpoints=True, validate_every=0)
    assert [found.step for found in manifest.published(tmp_path / "checkpoints")] == [4]
