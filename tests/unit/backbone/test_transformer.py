"""The Transformer as a whole: shapes and names, padding, packing, caching, initial weights, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import RESIDUAL_OUTPUTS, init_weights
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError

POSITIONS = ["rotary", "learned", "sinusoidal", "none"]
VARIANTS = {
    **{positions: {"positions": positions} for positions in POSITIONS},
    "grouped heads": {"n_kv_heads": 2},
    "post-norm": {"norm_placement": "post"},
    "llama-like": {"norm": "rmsnorm", "feedforward": "swiglu", "n_kv_heads": 1},
    "biases, narrow heads": {"bias": True, "d_head": 4},
}


def build(**given: object) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        **{"n_layers": 2, "d_model": 32, "n_heads": 4, "vocab_size": 50, "max_length": 16, "init_std": 0.2, **given}
    )
    model = Transformer(config).double().eval()
    init_weights(model, config)
    return model


def some_tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(seed))


def test_parameter_names_are_plain():
    names = dict(build(arrangement="encoder_decoder", feedforward="swiglu").named_parameters())
    block = ["attention_norm", "attention.query_key_value", "attention.output", "feedforward_norm"]
    block += ["feedforward.gate", "feedforward.up", "feedforward.down"]
    cross = ["cross_attention_norm", "cross_attention.query", "cross_attention.key_value", "cross_attention.output"]
    expected = {"token_embedding.weight", "encoder.final_norm.weight", "decoder.final_norm.weight"}
    for layer in range(2):
        expected |= {f"encoder.layers.{layer}.{part}.weight" for part in block}
        expected |= {f"decoder.layers.{layer}.{part}.weight" for part in block + cross}
    assert set(names) == expected
    assert build().embedding_weight.shape == (50, 32)


@pytest.mark.parametrize("arrangement", ["encoder", "decoder"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_packed_documents_do_not_see_each_other(variant, arrangement):
    model, tokens = build(arrangement=arrangement, **variant), some_tokens(1, 9)
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0, 0]])
    packed = model(tokens, segments=segments)
    alone = torch.cat((model(tokens[:, :3]), model(tokens[:, 3:7])), dim=1)
    torch.testing.assert_close(packed[:, :7], alone)
    assert torch.isfinite(packed).all()


@pytest.mark.parametrize("arrangement", ["encoder", "decoder"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_padding_on_either_side_changes_nothing(variant, arrangement):
    model, tokens = build(arrangement=arrangement, **variant), some_tokens(2, 6)
    alone = model(tokens[:1, :4])
    right = model(torch.cat((tokens[:1, :4], tokens[1:, :2]), 1), segments=torch.tensor([[1, 1, 1, 1, 0, 0]]))
    left = model(torch.cat((tokens[1:, :2], tokens[:1, :4]), 1), segments=torch.tensor([[0, 0, 1, 1, 1, 1]]))
    torch.testing.assert_close(right[:, :4], alone)
    torch.testing.assert_close(left[:, 2:], alone)


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_decoder_does_not_see_the_future_and_an_encoder_does(variant):
    tokens = some_tokens(1, 6)
    changed = tokens.clone()
    changed[0, 5] = (changed[0, 5] + 1) % 50
    decoder, encoder = build(**variant), build(arrangement="encoder", **variant)
    torch.testing.assert_close(decoder(tokens)[:, :5], decoder(changed)[:, :5])
    assert (encoder(tokens)[:, 0] - encoder(changed)[:, 0]).abs().max() > 1e-6


@pytest.mark.parametrize("arrangement", ["decoder", "encoder_decoder"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_a_cache_changes_nothing_however_tokens_arrive(variant, arrangement):
    model, tokens = build(arrangement=arrangement, **variant), some_tokens(2, 9)
    segments = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1, 1]])
    source = {}
    if arrangement == "encoder_decoder":
        source_segments = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
        memory = model.encode(some_tokens(2, 4, seed=1), source_segments)
        source = {"memory": memory, "source_segments": source_segments}
    for given in (segments, None):
        cut = slice(None) if given is None else segments > 0
        expected = model(tokens, segments=given, **source)[cut]
        for steps in ([9], [4, 5], [1] * 9, [3, 1, 3, 2]):
            cache, found, start = model.new_cache(2, 9), [], 0
            for step in steps:
                part = slice(start, start + step)
                new = None if given is None else given[:, part]
                found.append(model(tokens[:, part], segments=new, cache=cache, **source))
                start += step
            torch.testing.assert_close(torch.cat(found, 1)[cut], expected)


def test_segments_may_end_in_the_middle_of_a_cache():
    model, tokens = build(), some_tokens(2, 5)
    cache = model.new_cache(2, 5)
    model(tokens[:, :3], cache=cache)
    last = model(tokens[:, 3:4], segments=torch.tensor([[1], [0]]), cache=cache)
    torch.testing.assert_close(last[0, 0], model(tokens[:1, :4])[0, 3])
    last = model(tokens[:, 4:], cache=cache, segments=torch.tensor([[1], [0]]))
    torch.testing.assert_close(last[0, 0], model(tokens[:1])[0, 4])


def test_reordering_a_cache_reorders_its_rows():
    model, tokens, other = build(arrangement="encoder_decoder"), some_tokens(3, 4), some_tokens(3, 5, seed=2)
    memory, segments = model.encode(other), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1], [0, 0, 1, 1]])
    cache, rows = model.new_cache(3, 6), torch.tensor([2, 0])
    model(tokens, segments=segments, memory=memory, cache=cache)
    cache.reorder(rows)
    more = some_tokens(2, 2, seed=3)
    found = model(more, memory=memory[rows], cache=cache)
    whole = torch.cat((tokens[rows], more), 1)
    marks = torch.cat((segments[rows], torch.ones_like(more)), 1)
    torch.testing.assert_close(found, model(whole, segments=marks, memory=memory[rows])[:, 4:])


def test_packed_pairs_see_their_own_source():
    model = build(arrangement="encoder_decoder")
    source, target = some_tokens(1, 7, seed=1), some_tokens(1, 6)
    source_segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2]])
    segments = torch.tensor([[1, 1, 2, 2, 2, 2]])
    packed = model(target, segments=segments, source_tokens=source, source_segments=source_segments)
    first = model(target[:, :2], source_tokens=source[:, :3])
    second = model(target[:, 2:], source_tokens=source[:, 3:])
    torch.testing.assert_close(packed, torch.cat((first, second), 1))
    torch.testing.assert_close(first, model(target[:, :2], memory=model.encode(source[:, :3])))


def test_given_positions_are_used():
    model, tokens = build(positions="learned"), some_tokens(1, 3)
    shifted = model(tokens, positions=torch.tensor([[5, 6, 7]]))
    assert (shifted - model(tokens)).abs().max() > 1e-3
    torch.testing.assert_close(model(tokens, positions=torch.tensor([[0, 1, 2]])), model(tokens))


def test_dropout_acts_in_training_only():
    model, tokens = build(dropout=0.3), some_tokens(1, 5)
    torch.testing.assert_close(model(tokens), model(tokens), rtol=0, atol=0)
    model.train()
    assert (model(tokens) - model(tokens)).abs().max() > 1e-3


@pytest.mark.parametrize("positions", POSITIONS)
def test_too_long_is_refused(positions):
    model = build(positions=positions)
    with pytest.raises(ConfigError, match=r"17 tokens are more than backbone\.max_length 16"):
        model(some_tokens(1, 17))
    with pytest.raises(ConfigError, match="max_length 16"):
        build(positions=positions, arrangement="encoder")(some_tokens(1, 17))
    cache = model.new_cache(1, 20)
    model(some_tokens(1, 15), cache=cache)
    with pytest.raises(ConfigError, match="max_length 16"):
        model(some_tokens(1, 2), cache=cache)


@pytest.mark.parametrize(
    ("arrangement", "inputs", "message"),
    [
        ("encoder_decoder", {}, "needs source_tokens or memory"),
        ("decoder", {"source_tokens": some_tokens(1, 3)}, "decoder takes no source"),
        ("encoder", {"memory": torch.zeros(1, 3, 32)}, "encoder takes no source"),
    ],
)
def test_a_source_that_does_not_fit_the_arrangement_is_refused(arrangement, inputs, message):
    with pytest.raises(ConfigError, match=message):
        build(arrangement=arrangement)(some_tokens(1, 3), **inputs)


def test_other_refusals():
    with pytest.raises(ConfigError, match="vocab_size must be set"):
        Transformer(TransformerConfig())
    with pytest.raises(ConfigError, match="decoder has no encoder"):
        build().encode(some_tokens(1, 3))
    encoder = build(arrangement="encoder")
    with pytest.raises(ConfigError, match="no use for a cache"):
        encoder(some_tokens(1, 3), cache=encoder.new_cache(1, 3))
    decoder = build()
    with pytest.raises(ConfigError, match="5 tokens do not fit a cache of 4"):
        decoder(some_tokens(1, 5), cache=decoder.new_cache(1, 4))


@pytest.mark.parametrize("arrangement", ["encoder", "decoder", "encoder_decoder"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_a_model_made_on_the_meta_device_comes_alive(arrangement, positions):
    config = TransformerConfig(
        n_layers=2, d_model=32, n_heads=4, vocab_size=50, positions=positions, arrangement=arrangement, bias=True
    )
    with torch.device("meta"):
        materialised = Transformer(config)
    materialised.to_empty(device="cpu")
    for weight in materialised.parameters():
        nn.init.constant_(weight, math.nan)
    direct = Transformer(config)
    for model in (materialised, direct, direct):  # the last: again, for the same weights
        torch.manual_seed(3)
        init_weights(model, config)
    for (name, ours), theirs in zip(materialised.state_dict().items(), direct.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, msg=name)
    source = {"source_tokens": some_tokens(1, 4)} if arrangement == "encoder_decoder" else {}
    tokens = some_tokens(1, 6)
    torch.testing.assert_close(materialised(tokens, **source), direct(tokens, **source))


def test_initial_weights_are_small_and_residual_outputs_smaller():
    config = TransformerConfig(n_layers=8, d_model=128, n_heads=4, vocab_size=500, bias=True)
    model = Transformer(config)
    init_weights(model, config)
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):
            assert (weight == 1).all()
        elif name.endswith("bias"):
            assert (weight == 0).all()
        else:
            residual = name.endswith(("attention.output.weight", "feedforward.down.weight"))
            assert weight.std().item() == pytest.approx(0.02 / (4 if residual else 1), rel=0.05), name


def test_parameters_nobody_would_initialise_are_refused():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vector = nn.Parameter(torch.zeros(3))

    with pytest.raises(TypeError, match=r"Odd 'odd' .* reset_parameters"):
        init_weights(nn.ModuleDict({"odd": Odd()}), TransformerConfig())


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_bfloat16_stays_near_float64(variant):
    model, tokens = build(**variant), some_tokens(2, 8)
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 1, 1, 1]])
    real = segments > 0
    expected = model(tokens, segments=segments)[real]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.float()(tokens, segments=segments)[real]
    narrow = model.bfloat16()(tokens, segments=segments)[real]
    for found in (mixed, narrow):
        assert (found.double() - expected).abs().mean() < 0.03 * expected.abs().mean()


@pytest.mark.parametrize("narrow", [False, True], ids=["autocast", "bfloat16 weights"])
def test_a_cache_works_in_bfloat16(narrow):
    model, tokens = build().float(), some_tokens(2, 6)
    model = model.bfloat16() if narrow else model
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=not narrow):
        cache = model.new_cache(2, 6)
        assert cache.keys.dtype == torch.bfloat16
        found = torch.cat([model(tokens[:, [step]], cache=cache) for step in range(6)], 1)
        expected = model(tokens)
    assert (found.float() - expected.float()).abs().mean() < 0.03 * expected.float().abs().mean()


def test_every_parameter_of_a_packed_batch_gets_a_gradient():
    model = build(arrangement="encoder_decoder", positions="learned", bias=True)
    segments = torch.tensor([[1, 1, 2, 2, 0]])
    hidden = model(some_tokens(1, 5), segments=segments, source_tokens=some_tokens(1, 5), source_segments=segments)
    (hidden * torch.linspace(-1, 1, hidden.numel()).view_as(hidden))[segments > 0].sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().max() > 0, name


def test_residual_outputs_start_smaller_the_more_additions_their_stack_has():
    config = TransformerConfig(
        arrangement="encoder_decoder", vocab_size=50, d_model=128, n_heads=2, n_layers=2, n_encoder_layers=8
    )
    model = Transformer(config)
    init_weights(model, config)
    for stack, additions in (("encoder", 2 * 8), ("decoder", 3 * 2)):
        outputs = [
            module.weight
            for name, module in model.named_modules()
            if name.startswith(stack) and name.endswith(RESIDUAL_OUTPUTS)
        ]
        assert len(outputs) == additions
        measured = torch.cat([weight.flatten() for weight in outputs]).std()
        assert float(measured) == pytest.approx(config.init_std / additions**0.5, rel=0.02)
