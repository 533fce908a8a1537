"""Divisors of memory by strategy."""

from __future__ import annotations

import pytest

from lightning_nlp.errors import ConfigError
from lightning_nlp.run.sharding import Shares, shares, strategy_of_class


@pytest.mark.parametrize(
    ("strategy", "data", "tensor", "expected"),
    [
        ("auto", 1, 1, Shares()),
        ("ddp", 8, 1, Shares()),
        ("ddp_find_unused_parameters_true", 8, 1, Shares()),
        ("zero1", 4, 1, Shares(optimizer=4)),
        ("zero2", 4, 1, Shares(optimizer=4, gradients=4)),
        ("fsdp", 4, 1, Shares(4, 4, 4)),
        ("fsdp2", 4, 1, Shares(4, 4, 4)),
        ("model_parallel", 2, 4, Shares(2, 2, 2, 4)),
    ],
)
def test_what_each_rank_holds(strategy, data, tensor, expected):
    assert shares(strategy, data, tensor) == expected


def test_an_unknown_one_is_named():
    with pytest.raises(ConfigError, match="'zero4'; did you mean 'zero"):
        shares("zero4")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("lightning.pytorch.strategies.DDPStrategy", "ddp"),
        ("lightning.pytorch.strategies.FSDPStrategy", "fsdp"),
        ("lightning.pytorch.strategies.ModelParallelStrategy", "fsdp"),
        ("somewhere.MyTensorParallelFSDP", "fsdp"),
        ("somewhere.Horovod", None),
    ],
)
def test_classes_by_their_names(path, name):
    assert strategy_of_class(path) == name
