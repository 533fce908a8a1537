"""Every trainable parameter is in exactly one group; only matrices are decayed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.transformer import Transformer
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
