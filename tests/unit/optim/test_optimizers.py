"""Optimizer settings are checked, built, and put over a restored state."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.config import OptimizerConfig
from lightning_nlp.optim.optimizers import build_optimizer
from lightning_nlp.optim.restoring import apply_hyperparameters


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 4), nn.LayerNorm(4))


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module(torch.arange(7)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"name": "adam"},
            r"unknown optimizer\.name 'adam'; did you mean 'adamw'\? \(known: adamw, sgd, adafactor, lion, muon\)",
        ),
        ({"name": "zzz"}, r"unknown optimizer\.name 'zzz' \(known: adamw, "),
        ({"momentum": 0.9}, r"optimizer\.momentum belongs to sgd, adafactor and muon, optimizer\.name is adamw"),
        ({"nesterov": True}, r"optimizer\.nesterov belongs to sgd and muon, optimizer\.name is adamw \(null takes"),
        (
            {"name": "sgd", "betas": (0.8, 0.9)},
            r"optimizer\.betas belongs to adamw, lion and muon, optimizer\.name is sgd",
        ),
        ({"name": "lion", "eps": 1e-7}, r"optimizer\.eps belongs to adamw, adafactor and muon"),
        ({"scale_parameter": True}, r"optimizer\.scale_parameter belongs to adafactor, optimizer\.name is adamw"),
        ({"name": "muon", "momentum": 0.0}, r"optimizer\.nesterov needs optimizer\.momentum"),
        ({"groups": [{"match": ""}]}, r"optimizer\.groups: a rule's match is empty"),
        ({"groups": [{"match": "a", "lr_scale": 0}]}, r"groups: 'a': lr_scale must be positive, not 0; model\.freeze"),
        ({"groups": [{"match": "a", "weight_decay": -1}]}, r"groups: 'a': weight_decay must not be negative, not -1"),
        ({"name": "sgd", "nesterov": True}, r"optimizer\.nesterov needs optimizer\.momentum"),
        ({"name": "sgd", "nesterov": True, "momentum": 0.0}, r"optimizer\.nesterov needs optimizer\.momentum"),
        ({"lr": 0.0}, r"optimizer\.lr and eps must be positive"),
        ({"lr": -1.0}, r"optimizer\.lr and eps must be positive"),
        ({"eps": 0.0}, r"optimizer\.lr and eps must be positive"),
        ({"weight_decay": -0.1}, r"optimizer\.weight_decay not negative"),
        ({"betas": (0.9,)}, r"optimizer\.betas must be two numbers in \[0, 1\), not \(0\.9,\)"),
        ({"betas": (0.9, 1.0)}, r"optimizer\.betas must be two numbers in \[0, 1\), not \(0\.9, 1\.0\)"),
        ({"betas": (-0.1, 0.9)}, r"optimizer\.betas must be two numbers"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        OptimizerConfig(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"lr": float("nan")}, {"lr": float("inf")}, {"weight_decay": float("nan")}, {"name": "sgd", "momentum": -0.5}],
)
def test_settings_no_optimizer_can_work_with_are_refused(settings):
    with pytest.raises(ConfigError, match=r"optimizer\."):
        OptimizerConfig(**settings)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adamw", {"betas": (0.9, 0.95), "eps": 1e-8}),
        ("sgd", {"momentum": 0.0, "nesterov": False}),
        ("adafactor", {"momentum": 0.0, "eps": 1e-30, "scale_parameter": True}),
        ("lion", {"betas": (0.9, 0.99)}),
        ("muon", {"betas": (0.9, 0.95), "eps": 1e-8, "momentum": 0.95, "nesterov": True}),
    ],
)
def test_each_optimizer_has_defaults_of_its_own(name, settings):
    assert OptimizerConfig(name).settings == settings
    # A configuration saved by an older version has AdamW's values beside every optimizer.
    older = {"betas": [0.9, 0.95], "eps": 1e-8, "momentum": None, "nesterov": False}
    assert OptimizerConfig(name, **older).settings.keys() == settings.keys()


def test_betas_from_a_file_become_a_tuple():
    assert OptimizerConfig(betas=[0.8, 0.9]).betas == (0.8, 0.9)
    module = network()
    step(module, build_optimizer(module, OptimizerConfig(betas=[0, 0.9])))  # whole numbers, too


@pytest.mark.parametrize(
    ("config", "kind", "expected"),
    [
        (OptimizerConfig(lr=0.02, betas=(0.8, 0.9), eps=1e-6), torch.optim.AdamW, {"betas": (0.8, 0.9), "eps": 1e-6}),
        (OptimizerConfig("sgd", lr=0.02), torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
        (
            OptimizerConfig("sgd", lr=0.02, momentum=0.9, nesterov=True),
            torch.optim.SGD,
            {"momentum": 0.9, "nesterov": True},
        ),
    ],
)
def test_built_as_configured(config, kind, expected):
    module = network()
    optimizer = build_optimizer(module, config)
    assert type(optimizer) is kind
    assert {group["name"]: group["weight_decay"] for group in optimizer.param_groups} == {
        "decayed": 0.1,
        "undecayed": 0.0,
    }
    for group in optimizer.param_groups:
        assert group["lr"] == group["initial_lr"] == 0.02
        assert {name: group[name] for name in expected} == expected
    found = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in module.parameters())


def test_a_frozen_model_is_refused():
    with pytest.raises(ConfigError, match="nothing to train: every parameter is frozen"):
        build_optimizer(network().requires_grad_(False), OptimizerConfig())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            OptimizerConfig(),
            OptimizerConfig(lr=0.5, weight_decay=0.3, betas=(0.1, 0.2), eps=1e-3),
            {"initial_lr": 0.5, "betas": (0.1, 0.2), "eps": 1e-3},
        ),
        (
            OptimizerConfig("sgd", momentum=0.9, nesterov=True),
            OptimizerConfig("sgd", lr=0.5, weight_decay=0.3),
            {"initial_lr": 0.5, "momentum": 0.0, "nesterov": False},
        ),
        (
            OptimizerConfig("sgd"),
            OptimizerConfig("sgd", lr=0.5, weight_decay=0.3, momentum=0.9, nesterov=True),
            {"initial_lr": 0.5, "momentum": 0.9, "nesterov": True},
        ),
    ],
)
def test_new_settings_win_over_a_loaded_state(old, new, expected):
    module = network()
    before = build_optimizer(module, old)
    step(module, before)
    saved = copy.deepcopy(before.state_dict())

    after = build_optimizer(module, new)
    after.load_state_dict(saved)
    assert after.param_groups[0]["initial_lr"] == old.lr  # the saved values win until told otherwise
    apply_hyperparameters(after, new)
    for group in after.param_groups:
        assert {name: group[name] for name in expected} == expected
        assert group["weight_decay"] == (0.3 if group["name"] == "decayed" else 0.0)
    for number, state in saved["state"].items():  # moments are kept
        for name, value in state.items():
            torch.testing.assert_close(after.state_dict()["state"][number][name], value)
    step(module, after)


def test_same_settings_after_a_load_continue_exactly():
    config = OptimizerConfig(lr=0.05)
    one = network()
    first = build_optimizer(one, config)
    step(one, first)
    two = copy.deepcopy(one)
    second = build_optimizer(two, config)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    apply_hyperparameters(second, config)
    step(one, first)
    step(two, second)
    for left, right in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(left, right)


def test_fused_where_the_device_can_and_working_where_not():
    assert build_optimizer(network(), OptimizerConfig()).defaults["fused"] is True
    assert build_optimizer(network().to("meta"), OptimizerConfig()).defaults["fused"] is None
    module = nn.Module()
    module.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    optimizer = build_optimizer(module, OptimizerConfig(lr=0.5, weight_decay=0.0))
    module.weight.grad = torch.ones_like(module.weight)
    optimizer.step()
    torch.testing.assert_close(module.weight.real, torch.full((2, 2), 0.5))  # Adam's first step is lr long


@pytest.mark.parametrize(("old", "new"), [("sgd", "adamw"), ("adamw", "sgd")])
def test_the_state_of_another_optimizer_is_refused(old, new):
    module = network()
    before = build_optimizer(module, OptimizerConfig(old))
    step(module, before)
    after = build_optimizer(module, OptimizerConfig(new))
    with pytest.raises(
        ConfigError, match=rf"^optimizer\.name is {new}, but .* trained with {old}: go on with {old}, or"
    ):
        after.load_state_dict(before.state_dict())
