"""Averages of checkpoints: summed in float64, shared tensors once, other models refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run.weights import average, read


def mean(*states):
    """The averaged state of checkpoints, oldest first."""
    *others, newest = ({"state_dict": dict(state)} for state in states)
    return average(newest, others, [f"step-{number}" for number in range(len(states))])


def test_the_numbers_of_fairseqs_test():
    """tests/test_average_checkpoints.py of fairseq; whole numbers are not averaged here but taken from the newest."""
    old = {
        "a": torch.tensor([100.0]).double(),
        "b": torch.tensor([[1.0, 2, 3], [4, 5, 6]]),
        "c": torch.tensor([7, 8, 9]),
    }
    new = {"a": torch.tensor([1.0]).double(), "b": torch.ones(2, 3), "c": torch.tensor([2, 2, 2])}
    found = mean(old, new)
    assert found["a"].tolist() == [50.5] and found["a"].dtype == torch.float64
    assert found["b"].tolist() == [[1.0, 1.5, 2.0], [2.5, 3.0, 3.5]] and found["b"].dtype == torch.float32
    assert found["c"].tolist() == [2, 2, 2]
    assert new["a"].tolist() == [1.0]  # what is averaged stays what it was


class Shared(nn.Module):
    """The model of fairseq's second test: one layer under two names."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.first = nn.Linear(4, 4)
        nn.init.constant_(self.first.weight, value)
        self.second = nn.Linear(4, 4)
        self.second.weight, self.second.bias = self.first.weight, self.first.bias


def test_shared_parameters_are_averaged_once_and_stay_shared(tmp_path):
    models = [Shared(value) for value in (1.0, 2.0, 3.0)]
    for number, model in enumerate(models, 1):
        torch.save({"state_dict": model.state_dict()}, tmp_path / f"step-{number}.ckpt")
    found = read(tmp_path / "step-1.ckpt+step-2.ckpt+step-3.ckpt@auto")["state_dict"]
    for name in ("embedding.weight", "first.weight", "second.weight", "first.bias", "second.bias"):
        expected = torch.stack([model.state_dict()[name].double() for model in models]).mean(0).float()
        assert torch.equal(found[name], expected), name
    assert found["first.weight"].unique().tolist() == [2.0]
    assert found["first.weight"].data_ptr() == found["second.weight"].data_ptr()


def test_sums_do_not_round_in_between():
    """1 + 2^-24 - 1 is 0 in float32, and 1/3 of it is not."""
    states = [{"w": torch.tensor([value])} for value in (1.0, 2.0**-24, -1.0)]
    assert mean(*states)["w"].item() == pytest.approx(2.0**-24 / 3, rel=1e-6)
    narrow = [{"w": torch.tensor([value], dtype=torch.bfloat16)} for value in (1.0, 1.0, 1.0078125)]
    assert mean(*narrow)["w"].dtype == torch.bfloat16 and mean(*narrow)["w"].item() == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "MaskedLM"}, "one is a MaskedLM, the other a CausalLM"),
        ({"hyper_parameters": {"backbone": {"n_layers": 3}}}, "backbone.n_layers is 3 in one, 2 in the other"),
        ({"hyper_parameters": {"backbone": {"n_layers": 2, "dropout": 0.5}}}, None),
        ({"state_dict": {"w": torch.ones(3)}}, r"w has shape \(3,\) and \(2,\)"),
        ({"state_dict": {"w": torch.ones(2), "v": torch.ones(2)}}, "only one has v"),
    ],
)
def test_other_models_are_refused_with_one_line(tmp_path, change, message):
    plain = {"task": "CausalLM", "hyper_parameters": {"backbone": {"n_layers": 2}}, "state_dict": {"w": torch.ones(2)}}
    torch.save({**plain, **change}, tmp_path / "step-1.ckpt")
    torch.save(plain, tmp_path / "step-2.ckpt")
    reference = tmp_path / "step-1.ckpt+step-2.ckpt@raw"
    if message is None:
        assert read(reference)["state_dict"]["w"].tolist() == [1.0, 1.0]
        return
    with pytest.raises(CheckpointError, match=f"step-1 and step-2 cannot be averaged: {message}"):
        read(reference)


def test_moving_averages_are_weights_of_their_own(tmp_path):
    saved = {"state_dict": {"w": torch.ones(2), "n": torch.tensor(4)}, "optimizer_states": [{}]}
    torch.save(saved, tmp_path / "step-1.ckpt")
    saved["ema"] = {"weights": {"w": torch.full((2,), 3.0)}}
    torch.save(saved, tmp_path / "step-2.ckpt")
    for weights, value in (("raw", 1.0), ("ema", 3.0), ("auto", 3.0)):
        found = read(tmp_path / f"step-2.ckpt@{weights}")
        assert found["state_dict"]["w"].tolist() == [value] * 2 and found["state_dict"]["n"] == 4
        assert not {"ema", "optimizer_states"} & found.keys()
    assert "ema" in read(tmp_path / "step-2.ckpt")  # a plain file is what it is
    assert read(tmp_path / "step-1.ckpt@auto")["state_dict"]["w"].tolist() == [1.0, 1.0]
    with pytest.raises(ConfigError, match=r"step-1.ckpt has no moving average"):
        read(tmp_path / "step-1.ckpt@ema")


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "step-1.ckpt").mkdir()
    with pytest.raises(CheckpointError, match="cannot read"):
        read(tmp_path / "step-1.ckpt@auto")
