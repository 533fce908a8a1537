"""Initial weights by the published recipes, and what muP promises about them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import RULES, init_weights, learning_rate_scale
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.optim.optimizers import OptimizerConfig, build_optimizer

D, DFF, H = 128, 512, 4
SHAPE = {"n_layers": 3, "d_model": D, "d_ff": DFF, "n_heads": H, "vocab_size": 300, "positions": "learned"}


def built(**given) -> Transformer:
    config = TransformerConfig(**{**SHAPE, **given})
    model = Transformer(config)
    torch.manual_seed(0)
    init_weights(model, config)
    return model


XAVIER = {n: math.sqrt(2 / (D + n)) for n in (D, DFF)}
CASES = [
    # init, more fields, tokens, queries, keys, attention output, up, down (standard deviations)
    ("gpt2", {}, 0.02, 0.02, 0.02, 0.02 / math.sqrt(6), 0.02, 0.02 / math.sqrt(6)),
    ("gpt2", {"init_std": 0.1}, 0.1, 0.1, 0.1, 0.1 / math.sqrt(6), 0.1, 0.1 / math.sqrt(6)),
    ("bert", {}, *[0.02 * 0.8796] * 6),  # a normal cut at two deviations has 0.8796 of its deviation left
    ("t5", {}, 1.0, (D * D / H) ** -0.5, D**-0.5, D**-0.5, D**-0.5, DFF**-0.5),
    # Queries, keys and values are one matrix [3 D, D].
    ("xavier", {}, D**-0.5, *[math.sqrt(2 / (D + 3 * D))] * 2, XAVIER[D], XAVIER[DFF], XAVIER[DFF]),
    (
        "small",
        {},
        *[math.sqrt(2 / (5 * D))] * 3,
        2 / (3 * math.sqrt(D)),
        math.sqrt(2 / (5 * D)),
        2 / (3 * math.sqrt(D)),
    ),
    ("mup", {"mup_base_width": 32}, 0.02, *[0.02 / 2] * 2, 0.02 / math.sqrt(4 * 6), 0.01, 0.02 / math.sqrt(4 * 6)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}")
def test_deviations(case):
    kind, more, *expected = case
    model = built(init=kind, **more)
    layer = model.decoder.layers[1]
    query, key, _ = layer.attention.query_key_value.weight.detach().chunk(3)
    found = [
        model.token_embedding.weight,
        query,
        key,
        layer.attention.output.weight,
        layer.feedforward.up.weight,
        layer.feedforward.down.weight,
    ]
    assert [x.detach().std().item() for x in found] == pytest.approx(expected, rel=0.03)


def test_every_kind_has_a_case():
    assert {case[0] for case in CASES} == set(RULES)


def test_cross_attention_counts_among_the_additions():
    model = built(arrangement="encoder_decoder")
    assert model.decoder.layers[0].feedforward.down.weight.std().item() == pytest.approx(0.02 / 3, rel=0.03)
    assert model.encoder.layers[0].feedforward.down.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.03)


@pytest.mark.parametrize("kind", RULES)
def test_biases_start_at_zero_and_norms_at_one(kind):
    model = built(init=kind, bias=True, **({"mup_base_width": 64} if kind == "mup" else {}))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        if "norm.weight" in name:
            assert (parameter == 1).all(), name


def coordinates(width: int, steps: int = 5, lr: float = 0.003, **given) -> dict[str, float]:
    """Mean size of hidden states, and of what training did to scores, after some steps of Adam on one batch."""
    config = TransformerConfig(
        n_layers=2, d_model=width, n_heads=4, vocab_size=64, max_length=16, tie_embeddings=False, **given
    )
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"backbone": Transformer(config), "output": TokenOutput(config)})
    init_weights(model, config)
    optimizer = build_optimizer(
        model, OptimizerConfig(lr=lr, weight_decay=0.0), lambda name: learning_rate_scale(name, config)
    )
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"]
    tokens = torch.randint(0, 64, (8, 17), generator=torch.Generator().manual_seed(1))
    sizes, first = {}, None
    for _ in range(steps):
        hidden = [model["backbone"]._embed(tokens[:, :-1], None)]
        hooks = [
            layer.register_forward_hook(lambda module, given, output, into=hidden: into.append(output))
            for layer in model["backbone"].decoder.layers
        ]
        scores = model["output"](model["backbone"](tokens[:, :-1]), model["backbone"].embedding_weight)
        for hook in hooks:
            hook.remove()
        sizes = {f"block {n}": x.abs().mean().item() for n, x in enumerate(hidden)}
        first = scores.detach() if first is None else first
        sizes["change of scores"] = (scores - first).abs().mean().item()
        F.cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    return sizes


def slopes(**given) -> dict[str, float]:
    """Growth of each size with the width, in a plot of logarithms."""
    widths = [64, 128, 256, 512]
    found = [coordinates(width, **given) for width in widths]
    x = torch.tensor(widths, dtype=torch.float64).log()
    result = {}
    for name in found[0]:
        y = torch.tensor([sizes[name] for sizes in found], dtype=torch.float64).log()
        result[name] = (((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()).item()
    return result


def test_coordinates_keep_their_size_under_mup_and_not_without():
    """The coordinate check of Yang et al. 2022, appendix D.1."""
    mup, plain = slopes(init="mup", mup_base_width=64), slopes()
    # Where weights started adds 1 / sqrt(width) to what scores do: the small widths are not yet at the limit.
    limits = {name: 0.3 if name == "change of scores" else 0.1 for name in mup}
    assert all(abs(slope) < limits[name] for name, slope in mup.items()), mup
    assert all(slope > 0.5 for name, slope in plain.items() if name != "block 0"), plain


def test_learning_rates_and_decay_of_mup():
    config = TransformerConfig(
        d_model=128, n_heads=4, vocab_size=50, init="mup", mup_base_width=32, bias=True, tie_embeddings=False
    )
    model = torch.nn.ModuleDict({"backbone": Transformer(config), "output": TokenOutput(config)})
    optimizer = build_optimizer(
        model, OptimizerConfig(lr=0.1, weight_decay=0.2), lambda n: learning_rate_scale(n, config)
    )
    places = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        group = places[id(parameter)]
        hidden = parameter.ndim == 2 and ".layers." in name
        assert group["initial_lr"] == pytest.approx(0.025 if hidden else 0.1), name
        decayed = parameter.ndim == 2 and "embedding" not in name
        assert group["initial_lr"] * group["weight_decay"] == pytest.approx(0.02 if decayed else 0.0), name
    assert model["output"].scale == 0.25
    assert model["backbone"].decoder.layers[0].attention.scale == 1 / 32
