"""Every trainable parameter is in exactly one group; only matrices are decayed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.config import ParameterRule
from lightning_nlp.optim.groups import check_cover, parameter_groups


def model(*, tied: bool = False, frozen: tuple[str, ...] = ()) -> nn.Module:
    parts = nn.ModuleDict(
        {
            "embedding": nn.Embedding(11, 4),
            "norm": nn.LayerNorm(4),
            "first": nn.Linear(4, 4),
            "convolution": nn.Conv1d(4, 4, 3),
            "output": nn.Linear(4, 11, bias=False),
        }
    )
    if tied:
        parts["output"].weight = parts["embedding"].weight
    for name, parameter in parts.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return parts


def names(module: nn.Module, groups: list[dict]) -> dict[str, set[str]]:
    of = {id(parameter): name for name, parameter in module.named_parameters()}
    return {group["name"]: {of[id(parameter)] for parameter in group["params"]} for group in groups}


FREE = {"embedding.weight", "norm.weight", "norm.bias", "first.bias", "convolution.bias"}


@pytest.mark.parametrize(
    ("settings", "decayed", "undecayed"),
    [
        ({}, {"first.weight", "convolution.weight", "output.weight"}, FREE),
        ({"tied": True}, {"first.weight", "convolution.weight"}, FREE),
        (
            {"frozen": ("first.weight", "norm.bias")},
            {"convolution.weight", "output.weight"},
            FREE - {"norm.bias"},
        ),
    ],
)
def test_who_is_decayed(settings, decayed, undecayed):
    module = model(**settings)
    groups = parameter_groups(module, 0.3)
    assert names(module, groups) == {"decayed": decayed, "undecayed": undecayed}
    assert {group["name"]: group["weight_decay"] for group in groups} == {"decayed": 0.3, "undecayed": 0.0}


@pytest.mark.parametrize("tied", [False, True])
def test_every_parameter_is_in_exactly_one_group(tied):
    module = model(tied=tied)
    found = [id(parameter) for group in parameter_groups(module, 0.1) for parameter in group["params"]]
    assert sorted(found) == sorted(id(parameter) for parameter in module.parameters())


@pytest.mark.parametrize("output_first", [False, True])
def test_tied_embedding_is_undecayed_whichever_module_comes_first(output_first):
    embedding, output = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    output.weight = embedding.weight
    module = nn.Sequential(output, embedding) if output_first else nn.Sequential(embedding, output)
    (group,) = parameter_groups(module, 0.1)
    assert group["name"] == "undecayed"
    assert [id(parameter) for parameter in group["params"]] == [id(embedding.weight)]


def test_a_rule_decides_by_owner_and_parameter():
    module = model()
    groups = parameter_groups(module, 0.3, lambda owner, parameter: isinstance(owner, nn.Conv1d))
    assert names(module, groups)["undecayed"] == {"convolution.weight", "convolution.bias"}


@pytest.mark.parametrize("settings", [{}, {"positions": "learned"}, {"bias": True}, {"arrangement": "encoder_decoder"}])
def test_backbone_is_covered_and_its_embeddings_are_undecayed(settings):
    module = Transformer(TransformerConfig(size="nano", vocab_size=17, max_length=8, **settings))
    groups = names(module, parameter_groups(module, 0.1))
    assert groups["decayed"] | groups["undecayed"] == {name for name, _ in module.named_parameters()}
    assert not groups["decayed"] & groups["undecayed"]
    for name, parameter in module.named_parameters():
        assert (name in groups["decayed"]) == (parameter.ndim == 2 and "embedding" not in name), name


@pytest.mark.parametrize(
    ("module", "expected"),
    [(nn.LayerNorm(3), ["undecayed"]), (nn.Linear(2, 2, bias=False), ["decayed"]), (nn.Identity(), [])],
)
def test_empty_groups_are_left_out(module, expected):
    assert [group["name"] for group in parameter_groups(module, 0.1)] == expected


@pytest.mark.parametrize(("copies", "text"), [(0, "0 optimizer groups"), (2, "2 optimizer groups")])
def test_cover_names_the_parameter(copies, text):
    module = nn.Linear(2, 2)
    groups = [{"params": [module.weight]}] + [{"params": [module.bias]}] * copies
    with pytest.raises(RuntimeError, match=f"parameter bias is in {text}"):
        check_cover(module, groups)


def test_only_the_decayed_group_shrinks():
    module = nn.Linear(2, 2)
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = torch.optim.SGD(parameter_groups(module, 0.5), lr=0.1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(module.weight, before["weight"] * 0.95)
    torch.testing.assert_close(module.bias, before["bias"])


def rule(match: str, **settings) -> ParameterRule:
    return ParameterRule(match, **settings)


def test_the_first_rule_that_matches_holds():
    module = model()
    rules = [
        rule("first.weight", lr_scale=0.5, weight_decay=0.7),
        rule("first", lr_scale=2.0),
        rule("*norm*", weight_decay=0.1),
    ]
    groups = parameter_groups(module, 0.3, rules=rules)
    of = {id(parameter): name for name, parameter in module.named_parameters()}
    found = {of[id(p)]: (group["lr_scale"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert found == {
        "embedding.weight": (1.0, 0.0),
        "norm.weight": (1.0, 0.1),  # a rule that says so also decays what is not otherwise
        "norm.bias": (1.0, 0.1),
        "first.weight": (0.5, 0.7),
        "first.bias": (2.0, 0.0),
        "convolution.weight": (1.0, 0.3),
        "convolution.bias": (1.0, 0.0),
        "output.weight": (1.0, 0.3),
    }
    assert groups[0]["rule"] is None and groups[0]["lr_scale"] == 1.0  # what is logged: the plain learning rate
    for group in groups:
        assert group["param_names"] == [of[id(parameter)] for parameter in group["params"]]


def test_a_rule_scales_the_rate_and_a_width_also_the_decay():
    (group,) = parameter_groups(
        nn.Linear(2, 2, bias=False), 0.3, lr_scale=lambda name: 0.25, rules=[rule("*", lr_scale=2)]
    )
    assert (group["lr_scale"], group["weight_decay"]) == (0.5, 1.2)


@pytest.mark.parametrize(
    ("patterns", "frozen", "text"),
    [
        (
            ["convolusion"],
            (),
            r"optimizer\.groups: 'convolusion' matches nothing; near: 'convolution\.bias', 'convolution\.weight'",
        ),
        (["norm"], ("norm.weight", "norm.bias"), r"optimizer\.groups: 'norm' matches nothing"),
        (["first", "first.bias"], (), r"all that 'first\.bias' matches was matched before, by 'first': the first rule"),
    ],
)
def test_a_rule_for_nothing_is_refused(patterns, frozen, text):
    with pytest.raises(ConfigError, match=text):
        parameter_groups(model(frozen=frozen), 0.3, rules=[rule(pattern) for pattern in patterns])
