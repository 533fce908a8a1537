"""Adapters against float64 mathematics: W + (alpha / r) B A and y + U gelu(D y + d) + u; identity at the start; names."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_nlp.backbone.adapters import (
    AdaptedLinear,
    AdapterConfig,
    Bottleneck,
    LoRA,
    adapted_layers,
    attach,
    fold,
    folded_state,
    is_adapter,
    merge,
    unmerge,
)
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.selection import matches, select
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError

SHAPE = {"vocab_size": 29, "n_layers": 2, "d_model": 16, "n_heads": 4, "n_kv_heads": 2, "max_length": 12}
TOKENS = torch.arange(24).view(2, 12) % 29


def backbone(adapter: AdapterConfig | None = None, dtype=torch.float32, **changes):
    """A small Transformer; with adapters, whose weights are random too (as after training)."""
    config = TransformerConfig(**{**SHAPE, **changes})
    torch.manual_seed(0)
    model = Transformer(config)
    init_weights(model, config)
    if adapter is not None:
        attach(model, adapter, config)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if is_adapter(name):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.to(dtype).eval()


def hidden(model, **changes):
    source = {"source_tokens": TOKENS} if model.config.arrangement == "encoder_decoder" else {}
    with torch.no_grad():
        return model(TOKENS, **source, **changes)


ALL = AdapterConfig(kind="lora", targets=["*"], parts=["query", "key", "value"], rank=3, alpha=5.0)
LORAS = {
    "query and value": AdapterConfig(kind="lora", rank=2, alpha=3.0),
    "key alone": AdapterConfig(kind="lora", parts=["key"], rank=2, alpha=3.0),
    "every matrix": ALL,
    "rank stabilized": AdapterConfig(kind="lora", rank=4, alpha=3.0, rank_stabilized=True),
}
BOTTLENECK = AdapterConfig(kind="bottleneck", targets=["attention.output", "feedforward.down"], width=5)


# Mathematics --------------------------------------------------------------------------------------------------


# Scale by hand: alpha / r, and alpha / sqrt(r) for rank 4.
@pytest.mark.parametrize(
    ("name", "scale"), [("query and value", 1.5), ("key alone", 1.5), ("every matrix", 5 / 3), ("rank stabilized", 1.5)]
)
def test_lora_is_a_change_of_the_weight(name, scale):
    """Each part of a fused matrix by its own A and B, in float64; rows of parts that are not named stay."""
    model = backbone(LORAS[name], torch.float64)
    layer = model.decoder.layers[1].attention.query_key_value
    rank, wanted = LORAS[name].rank, LORAS[name].parts or ["query", "value"]
    weight, above, below = layer.weight.detach().clone(), 0, 0
    for part, start, stop in (("query", 0, 16), ("key", 16, 24), ("value", 24, 32)):  # 4 heads of 4, 2 key-value heads
        if part in wanted:
            a = layer.adapter.a[below : below + rank]
            b = layer.adapter.b[above : above + stop - start]
            weight[start:stop] += scale * (b @ a)
            below, above = below + rank, above + stop - start
    assert (below, above) == (len(layer.adapter.a), len(layer.adapter.b))
    x = torch.randn(3, 7, 16, dtype=torch.float64)
    torch.testing.assert_close(layer(x), x @ weight.t(), rtol=1e-12, atol=1e-12)
    assert (layer(x) - x @ layer.weight.t()).abs().max() > 0.1


def test_bottleneck_mathematics():
    model = backbone(BOTTLENECK, torch.float64, bias=True)
    layer = model.decoder.layers[0].feedforward.down
    x = torch.randn(2, 3, 64, dtype=torch.float64)
    y = x @ layer.weight.t() + layer.bias
    inner = y @ layer.adapter.down.t() + layer.adapter.down_bias
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    torch.testing.assert_close(
        layer(x), y + inner @ layer.adapter.up.t() + layer.adapter.up_bias, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("adapter", [*LORAS.values(), BOTTLENECK], ids=[*LORAS, "bottleneck"])
def test_nothing_changes_before_training_and_only_adapters_are_new(adapter):
    plain, config = backbone(), TransformerConfig(**SHAPE)
    model = backbone()
    before = set(model.state_dict())
    attach(model, adapter, config)
    assert torch.equal(hidden(model), hidden(plain))
    after = model.state_dict()
    assert before < set(after) and all(is_adapter(name) for name in set(after) - before)
    model.load_state_dict(plain.state_dict(), strict=False)  # a checkpoint of the base, under its own names
    assert torch.equal(hidden(model), hidden(plain))


def test_the_first_step_moves_b_alone():
    """With B = 0 the gradient of A is 0; that of B is (alpha / r) g (A x)^T."""
    model = backbone()
    attach(model, ALL, model.config)
    model.double()
    hidden_states = model(TOKENS)
    (hidden_states * torch.randn_like(hidden_states)).sum().backward()
    for layer in adapted_layers(model).values():
        assert layer.adapter.a.grad.abs().max() == 0 and layer.adapter.b.grad.abs().max() > 0


def test_gradients_against_differences():
    layer = backbone(AdapterConfig(kind="lora", rank=2), torch.float64).decoder.layers[0].attention.query_key_value
    x = torch.randn(2, 16, dtype=torch.float64, requires_grad=True)

    def with_values(x, a, b):
        return torch.func.functional_call(layer, {"adapter.a": a, "adapter.b": b}, (x,))

    assert torch.autograd.gradcheck(with_values, (x, layer.adapter.a, layer.adapter.b))


def test_dropout_is_of_the_input_and_of_training_only():
    model = backbone(AdapterConfig(kind="lora", rank=2, dropout=0.5))
    layer = model.decoder.layers[0].attention.query_key_value
    x = torch.ones(64, 16)
    assert torch.equal(layer(x)[0], layer(x)[1])
    layer.train()
    assert not torch.equal(layer(x)[0], layer(x)[1])
    key = slice(16, 24)  # not adapted: nothing is dropped there
    assert torch.equal(layer(x)[0, key], layer(x)[1, key])


# Merging ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", LORAS)
def test_merge_does_the_same_and_unmerge_restores_every_bit(name, dtype):
    model = backbone(LORAS[name], dtype)
    before, state = hidden(model), {key: value.clone() for key, value in model.state_dict().items()}
    merge(model)
    assert all(layer.merged for layer in adapted_layers(model).values())
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]
    torch.testing.assert_close(hidden(model), before, rtol=tolerance, atol=tolerance)
    weights = [layer.weight.clone() for layer in adapted_layers(model).values()]
    merge(model)  # twice is once
    assert all(torch.equal(layer.weight, w) for layer, w in zip(adapted_layers(model).values(), weights, strict=True))
    for key, value in model.state_dict().items():  # also a merged model saves its base
        assert torch.equal(value, state[key]), key
    unmerge(model)
    assert all(torch.equal(value, state[key]) for key, value in model.named_parameters())
    assert torch.equal(hidden(model), before)


def test_merged_weight_is_rounded_once():
    """bfloat16: as W + s B A in float64, rounded; in bfloat16 throughout it would be off."""
    layer = backbone(AdapterConfig(kind="lora", targets=["attention.output"], rank=7, alpha=7.0), torch.bfloat16)
    layer = layer.decoder.layers[0].attention.output
    exact = layer.weight.double() + layer.adapter.b.double() @ layer.adapter.a.double()
    assert (layer.merged_weight().double() - exact).abs().max() <= (exact.abs().max() * 2**-8)
    assert torch.equal(layer.merged_weight(), exact.float().bfloat16())


def test_training_mode_and_loading_unmerge():
    model = backbone(ALL)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    for undo in (lambda: model.train(), lambda: model.load_state_dict(state)):
        merge(model)
        undo()
        assert not any(layer.merged for layer in adapted_layers(model).values())
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_folded_models_are_plain():
    model = backbone(ALL, bias=True)
    before, state = hidden(model), model.state_dict()
    folded = folded_state({f"backbone.{key}": value for key, value in state.items()}, ALL, model.config)
    fold(model)
    assert not adapted_layers(model) and {
        type(layer) for layer in model.modules() if isinstance(layer, torch.nn.Linear)
    } == {torch.nn.Linear}
    torch.testing.assert_close(hidden(model), before, rtol=1e-5, atol=1e-5)
    plain = backbone(bias=True)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(hidden(plain), hidden(model))
    assert {f"backbone.{key}": True for key in model.state_dict()} == {
        key: torch.equal(value, model.state_dict()[key[9:]]) for key, value in folded.items()
    }


def test_bottlenecks_do_not_merge():
    model = backbone(BOTTLENECK)
    for act in (merge, fold, lambda model: folded_state(model.state_dict(), BOTTLENECK, model.config)):
        with pytest.raises(ConfigError, match="cannot be merged"):
            act(model)
    assert len(adapted_layers(model)) == 4  # none was replaced before the refusal


# Where they go ------------------------------------------------------------------------------------------------

PLACES = [
    (
        {},
        AdapterConfig(kind="lora"),
        ["decoder.layers.0.attention.query_key_value", "decoder.layers.1.attention.query_key_value"],
    ),
    ({}, AdapterConfig(kind="bottleneck"), ["decoder.layers.0.feedforward.down", "decoder.layers.1.feedforward.down"]),
    (
        {"feedforward": "swiglu"},
        AdapterConfig(kind="lora", targets=["layers.1.feedforward"]),
        [f"decoder.layers.1.feedforward.{name}" for name in ("gate", "up", "down")],
    ),
    (
        {"arrangement": "encoder", "n_layers": 1},
        AdapterConfig(kind="lora", targets=["backbone.encoder.*.u[pq]"]),
        ["encoder.layers.0.feedforward.up"],
    ),
    (
        {"arrangement": "encoder_decoder", "n_layers": 1},
        AdapterConfig(kind="lora", targets=["cross_attention"], parts=["value"]),
        [f"decoder.layers.0.cross_attention.{name}" for name in ("output", "query", "key_value")],
    ),
    (
        {"arrangement": "encoder_decoder", "n_layers": 1},
        AdapterConfig(kind="bottleneck", targets=["attention.output"]),
        ["encoder.layers.0.attention.output", "decoder.layers.0.attention.output"],
    ),
]


@pytest.mark.parametrize(("changes", "adapter", "names"), PLACES)
def test_targets(changes, adapter, names):
    model = backbone(adapter, **changes)
    assert list(adapted_layers(model)) == names
    assert hidden(model).isfinite().all()


def test_parts_of_a_cross_attention():
    model = backbone(PLACES[4][1], arrangement="encoder_decoder", n_layers=1)
    cross = model.decoder.layers[0].cross_attention
    assert cross.key_value.adapter.rows == [(8, 16)]  # the second half: values
    assert cross.query.adapter.rows == [(0, 16)]  # a matrix of one part is adapted as a whole


MATCHES = [
    ("attention.output", "backbone.decoder.layers.0.attention.output", True),
    ("attention.output", "backbone.decoder.layers.0.cross_attention.output", False),  # a pattern begins after a dot
    ("*attention.output", "backbone.decoder.layers.0.cross_attention.output", True),
    ("layers.0", "backbone.decoder.layers.0.attention.output", True),
    ("layers.0", "backbone.decoder.layers.01.attention.output", False),
    ("layers.1", "backbone.decoder.layers.10.attention.output", False),
    ("layers.[01]", "backbone.decoder.layers.1.feedforward.up.weight", True),
    ("heads", "heads.lm.output.weight", True),
    ("Heads", "heads.lm.output.weight", False),
    ("norm", "backbone.decoder.final_norm.weight", False),
    ("*norm", "backbone.decoder.final_norm.weight", True),
]


@pytest.mark.parametrize(("pattern", "name", "expected"), MATCHES)
def test_patterns(pattern, name, expected):
    assert matches(pattern, name) is expected


def test_select_keeps_order_and_names_what_is_near():
    names = ["backbone.layers.0.attention.query_key_value", "backbone.layers.0.feedforward.up"]
    assert select(["feedforward", "attention"], names, "key") == names
    with pytest.raises(
        ConfigError, match=r"^key: 'attention.query_key_valeu' matches nothing; near: 'attention.query_key_value'"
    ):
        select(["feedforward", "attention.query_key_valeu"], names, "key")
    with pytest.raises(
        ConfigError, match=r"'xyz' matches nothing \(there are: attention.query_key_value, feedforward.up\)"
    ):
        select(["xyz"], names, "key")


WRONG = [
    ({"kind": "loar"}, "did you mean 'lora'"),
    ({"kind": "lora", "rank": 0}, "adapter.rank must be at least 1, not 0"),
    ({"kind": "bottleneck", "width": 0}, "adapter.width must be at least 1"),
    ({"kind": "lora", "alpha": math.nan}, "adapter.alpha must be above 0"),
    ({"kind": "lora", "dropout": 1.0}, r"adapter.dropout must be in \[0, 1\), not 1.0"),
    ({"kind": "lora", "targets": []}, "adapter.targets is empty"),
    ({"kind": "lora", "parts": ["quary"]}, "did you mean 'query'"),
    ({"kind": "lora", "width": 8}, "adapter.width belongs to adapter.kind bottleneck, but adapter.kind is lora"),
    ({"kind": "bottleneck", "rank": 4}, "adapter.rank belongs to adapter.kind lora, but"),
    ({"rank": 4}, "adapter.rank belongs to adapter.kind lora, but adapter.kind is none"),
    ({"targets": ["up"]}, "adapter.targets belongs to adapter.kind lora or bottleneck, but adapter.kind is none"),
    ({"kind": "lora", "rank": 0, "alpha": -1.0}, "adapter.rank .*; adapter.alpha"),
]


@pytest.mark.parametrize(("values", "complaint"), WRONG)
def test_wrong_settings(values, complaint):
    with pytest.raises(ConfigError, match=complaint):
        AdapterConfig(**values)


MISPLACED = [
    (
        AdapterConfig(kind="lora", targets=["attention.outptu"]),
        "adapter.targets: 'attention.outptu' matches nothing; near: 'attention.output'",
    ),
    (
        AdapterConfig(kind="lora", targets=["up", "token_embedding"]),
        "'token_embedding' matches nothing",
    ),  # is no linear layer
    (
        AdapterConfig(kind="lora", targets=["feedforward"], parts=["query"]),
        "no matrix in adapter.targets holds several parts",
    ),
    (AdapterConfig(kind="lora", targets=["*"], parts=["query"]), "adapter.parts query selects nothing of .*key_value"),
]


@pytest.mark.parametrize(("adapter", "complaint"), MISPLACED)
def test_a_refused_adapter_leaves_the_backbone_as_it_was(adapter, complaint):
    model = backbone(arrangement="encoder_decoder")
    with pytest.raises(ConfigError, match=complaint):
        attach(model, adapter, model.config)
    assert not adapted_layers(model)
    attach(model, ALL, model.config)
    with pytest.raises(ConfigError, match="already has an adapter"):
        attach(model, ALL, model.config)


def test_configuration_round_trip_and_what_must_agree():
    for adapter in (*LORAS.values(), BOTTLENECK, AdapterConfig()):
        assert AdapterConfig(**adapter.to_dict()) == adapter
    assert ALL.differences(AdapterConfig(**{**ALL.to_dict(), "dropout": 0.1, "rank": 9})) == ["rank"]


@pytest.mark.parametrize(("adapter", "kind"), [(ALL, LoRA), (BOTTLENECK, Bottleneck)])
def test_init_weights_reaches_adapters(adapter, kind):
    """Also after the meta device, where memory holds anything: ``init_weights`` gives an adapter that changes nothing."""
    config = TransformerConfig(**SHAPE)
    with torch.device("meta"):
        model = Transformer(config)
        attach(model, adapter, config)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    init_weights(model, config)
    layer = next(iter(adapted_layers(model).values()))
    assert isinstance(layer, AdaptedLinear) and isinstance(layer.adapter, kind)
    zero, drawn = (layer.adapter.b, layer.adapter.a) if kind is LoRA else (layer.adapter.up, layer.adapter.down)
    assert zero.abs().max() == 0 and drawn.std() > 0.05 and hidden(model.eval()).isfinite().all()
