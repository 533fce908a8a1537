"""Directories of checkpoint parts: what is wrong with one is a CheckpointError of one line."""

from __future__ import annotations

import pickle
from pathlib import PurePosixPath

import pytest
import torch

from lightning_nlp.errors import CheckpointError
from lightning_nlp.run import sharded


@pytest.fixture
def saved(tmp_path):
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
    state = {0: {"exp_avg": torch.full((2, 3), 0.5), "step": torch.tensor(4.0)}}
    checkpoint = {"state_dict": weights, "optimizer_states": [{"state": state, "param_groups": []}], "global_step": 4}
    sharded.save(checkpoint, tmp_path / "parts", first=True)
    return tmp_path / "parts", checkpoint


def test_what_was_written_is_read(saved):
    path, checkpoint = saved
    assert sharded.is_sharded(path)
    found = sharded.read(path)
    assert found["global_step"] == 4
    torch.testing.assert_close(found["state_dict"], checkpoint["state_dict"], rtol=0, atol=0)
    torch.testing.assert_close(found["optimizer_states"][0]["state"], checkpoint["optimizer_states"][0]["state"])


def spoil(path, how):
    (part,) = path.glob("*.distcp")
    if how == "gone":
        part.unlink()
    elif how == "cut":
        part.write_bytes(part.read_bytes()[:40])
    elif how == "no index":
        (path / sharded.INDEX).unlink()
    else:
        (path / sharded.OUTLINE).write_bytes(b"nothing")


@pytest.mark.parametrize("how", ["gone", "cut", "no index", "outline"])
def test_damage_is_one_line(saved, how):
    path, _ = saved
    spoil(path, how)
    with pytest.raises(CheckpointError, match=f"cannot read {path}") as caught:
        sharded.read(path)
    assert "\n" not in str(caught.value) and "ranks:dict_keys" not in str(caught.value)


def test_a_missing_tensor_is_one_line(saved):
    path, _ = saved
    with pytest.raises(CheckpointError, match=r"cannot read .*state_dict\.other"):
        sharded.load_into({"state_dict.other": torch.zeros(2)}, path)


def test_a_directory_that_cannot_be_written(tmp_path, saved, monkeypatch):
    _, checkpoint = saved

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sharded.FileSystemWriter, "write_data", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*No space left on device"):
        sharded.save(checkpoint, tmp_path / "other", first=True)


@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_indexes_of_other_pythons_hold_their_paths(module, tmp_path):
    """The module of ``PosixPath`` is another one in Python 3.13."""
    content = pickle.dumps(PurePosixPath("/parts"), protocol=2)
    index = content.replace(b"pathlib\nPurePosixPath", f"{module}\nPosixPath".encode())
    assert index != content
    (tmp_path / "index").write_bytes(index)
    with (tmp_path / "index").open("rb") as stream:
        assert sharded.IndexUnpickler(stream).load() == PurePosixPath("/parts")


def test_an_index_runs_nothing(tmp_path):
    (tmp_path / "index").write_bytes(b"cos\nsystem\n(S'echo no'\ntR.")
    with (tmp_path / "index").open("rb") as stream, pytest.raises(pickle.UnpicklingError, match=r"posix|os\.system"):
        sharded.IndexUnpickler(stream).load()
