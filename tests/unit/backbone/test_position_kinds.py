"""Position encodings against the formulas they were published with, and against another implementation."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_nlp.backbone.config import RotaryScaling, TransformerConfig
from lightning_nlp.backbone.positions import POSITIONS, alibi_slopes
from lightning_nlp.backbone.rotary import Rotation, frequencies
from lightning_nlp.backbone.transformer import Transformer


def waves(layout: str, width: int, positions: int, **changes) -> torch.Tensor:
    config = TransformerConfig(positions="sinusoidal", sinusoid=layout, d_model=width, n_heads=1, **changes)
    zeros = torch.zeros(1, positions, width, dtype=torch.float64)
    return POSITIONS["sinusoidal"](config)(zeros, torch.arange(positions)[None])[0]


def test_sines_and_cosines_in_halves():
    found = waves("halves", 8, 20)
    for p in (0, 1, 19):
        for i in range(4):
            assert found[p, i].item() == pytest.approx(math.sin(p / 10000 ** (2 * i / 8)), abs=1e-12)
            assert found[p, 4 + i].item() == pytest.approx(math.cos(p / 10000 ** (2 * i / 8)), abs=1e-12)


def test_the_layout_of_fairseq_counts_from_the_padding():
    found = waves("fairseq", 8, 20, pad_id=1, vocab_size=9)
    for p in (0, 1, 19):
        for i in range(4):
            angle = (p + 2) / 10000 ** (i / 3)
            assert found[p, i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert found[p, 4 + i].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_the_three_layouts_differ_and_two_are_permutations():
    interleaved, halves, fairseq = (waves(layout, 16, 30) for layout in ("interleaved", "halves", "fairseq"))
    torch.testing.assert_close(interleaved, halves.unflatten(1, (2, 8)).transpose(1, 2).flatten(1))
    assert (halves - fairseq).abs().max() > 0.1


@pytest.mark.parametrize(
    ("heads", "slopes"),
    [
        (1, [2**-8]),
        (8, [2**-1, 2**-2, 2**-3, 2**-4, 2**-5, 2**-6, 2**-7, 2**-8]),  # the paper's example
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),  # 4 heads, then every second of 8
    ],
)
def test_slopes_of_alibi(heads, slopes):
    assert alibi_slopes(heads) == pytest.approx(slopes, rel=1e-12)


def test_alibi_falls_with_the_distance():
    part = POSITIONS["alibi"](TransformerConfig(positions="alibi", n_heads=2, d_model=8))
    index = torch.arange(3)[None]
    bias = part.bias(index, index).whole()[0]
    expected = torch.tensor([[0.0, 1, 2], [1, 0, 1], [2, 1, 0]])
    torch.testing.assert_close(bias, torch.stack((-expected / 16, -expected / 256)))


def test_slopes_equal_those_of_bloom():
    transformers = pytest.importorskip("transformers.models.bloom.modeling_bloom", reason="needs transformers")
    for heads in (1, 2, 3, 8, 12, 20):
        theirs = transformers.build_alibi_tensor(torch.ones(1, 2), heads, torch.float64)[:, 0, 1]
        torch.testing.assert_close(torch.tensor(alibi_slopes(heads), dtype=torch.float64), theirs, rtol=1e-6, atol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_buckets_on_paper(causal):
    # 8 buckets up to distance 16. Causal: 0-3 one by one, then 4 + floor(4 log(d/4) / log(4)).
    part = POSITIONS["relative"](
        TransformerConfig(positions="relative", relative_buckets=8, relative_distance=16), causal
    )
    found = part.bucket(torch.tensor([5, 1, 0, -1, -2, -3, -4, -5, -6, -8, -12, -16, -99])).tolist()
    both = [4 + 2, 4 + 1, 0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3]
    assert found == ([0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 7, 7] if causal else both)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (8, 20), (64, 300)])
def test_buckets_equal_those_of_t5(causal, buckets, farthest):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5", reason="needs transformers")
    config = TransformerConfig(positions="relative", relative_buckets=buckets, relative_distance=farthest)
    distances = torch.arange(-400, 401)
    theirs = t5.T5Attention._relative_position_bucket(distances, not causal, buckets, farthest)
    assert torch.equal(POSITIONS["relative"](config, causal).bucket(distances), theirs)


SCALINGS = {
    "linear": RotaryScaling(kind="linear", factor=4.0),
    "yarn": RotaryScaling(kind="yarn", factor=8.0, original_length=128),
    "yarn, own height": RotaryScaling(
        kind="yarn", factor=2.5, original_length=512, beta_fast=16, beta_slow=2, attention_factor=1.3
    ),
    "llama3": RotaryScaling(kind="llama3", factor=8.0, original_length=512, low_frequency=1, high_frequency=4),
}


@pytest.mark.parametrize("name", SCALINGS)
def test_stretched_rotary_equals_another_implementation(name):
    rope = pytest.importorskip("transformers.modeling_rope_utils", reason="needs transformers")
    from transformers import LlamaConfig

    ours = SCALINGS[name]
    parameters = {"rope_type": ours.kind, "rope_theta": 10000.0, "factor": ours.factor}
    if ours.kind != "linear":
        parameters["original_max_position_embeddings"] = ours.original_length
    if ours.kind == "yarn":
        parameters |= {"beta_fast": ours.beta_fast, "beta_slow": ours.beta_slow}
        parameters |= {} if ours.attention_factor is None else {"attention_factor": ours.attention_factor}
    if ours.kind == "llama3":
        parameters |= {"low_freq_factor": ours.low_frequency, "high_freq_factor": ours.high_frequency}
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=2, max_position_embeddings=4096, rope_parameters=parameters
    )
    theirs, height = rope.ROPE_INIT_FUNCTIONS[ours.kind](config, torch.device("cpu"))
    found, own_height = frequencies(64, 10000.0, ours, None, torch.float64)
    torch.testing.assert_close(found.float(), theirs, rtol=2e-6, atol=0)
    assert own_height == pytest.approx(height, rel=1e-12)


def test_ntk_stretches_the_slowest_pair_in_full_and_the_fastest_not():
    plain, _ = frequencies(64, 10000.0, None, None, torch.float64)
    ntk, height = frequencies(64, 10000.0, RotaryScaling(kind="ntk", factor=8.0), None, torch.float64)
    assert ntk[0] == plain[0]
    assert (plain[-1] / ntk[-1]).item() == pytest.approx(8.0, rel=1e-12)
    assert height == 1.0


def test_a_share_of_a_head_is_turned():
    angles = torch.tensor([[[0.5], [1.0]]], dtype=torch.float64)
    x = torch.arange(8.0, dtype=torch.float64).view(1, 1, 2, 4)
    turned = Rotation(angles)(x)
    assert torch.equal(turned[..., 2:], x[..., 2:])
    assert turned[0, 0, 0, 0].item() == pytest.approx(0 * math.cos(0.5) - 1 * math.sin(0.5))
    assert turned[0, 0, 1, 1].item() == pytest.approx(5 * math.cos(1.0) + 4 * math.sin(1.0))


KINDS = [
    {"positions": "rotary"},
    {"positions": "rotary", "rotary_share": 0.5},
    {"positions": "alibi"},
    {"positions": "relative", "relative_buckets": 8, "relative_distance": 20},
    {"positions": "learned"},
    {"positions": "sinusoidal", "sinusoid": "fairseq"},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("arrangement", ["encoder", "decoder"])
def test_order_matters_and_packing_does_not(kind, arrangement):
    torch.manual_seed(0)
    config = TransformerConfig(arrangement=arrangement, d_model=16, n_heads=2, vocab_size=20, pad_id=0, **kind)
    model = Transformer(config).double().eval()
    a, b = torch.randint(1, 20, (1, 9)), torch.randint(1, 20, (1, 5))
    alone = torch.cat([model(a), model(b)], dim=1)
    segments = torch.tensor([[1] * 9 + [2] * 5])
    packed = model(torch.cat([a, b], dim=1), segments=segments)
    torch.testing.assert_close(packed, alone, atol=1e-10, rtol=1e-10)
    padded = model(
        torch.cat([torch.zeros(1, 3, dtype=torch.long), a], dim=1), segments=torch.tensor([[0] * 3 + [1] * 9])
    )
    torch.testing.assert_close(padded[:, 3:], alone[:, :9], atol=1e-10, rtol=1e-10)
    swapped = a.clone()
    swapped[0, :2] = a[0, :2].flip(0)
    assert a[0, 0] != a[0, 1] and (model(swapped)[0, -1] - alone[0, 8]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_right_padded_prompts_go_on_from_a_cache(kind):
    """Positions, not places in the cache, decide the distance to what comes after the padding."""
    torch.manual_seed(0)
    config = TransformerConfig(d_model=16, n_heads=2, vocab_size=20, pad_id=0, **kind)
    model = Transformer(config).double().eval()
    tokens = torch.randint(1, 20, (1, 8))
    whole = model(tokens)
    cache = model.new_cache(1, 11)
    prompt = torch.cat([tokens[:, :5], torch.zeros(1, 3, dtype=torch.long)], dim=1)
    segments = torch.tensor([[1] * 5 + [0] * 3])
    model(prompt, segments=segments, positions=torch.tensor([[0, 1, 2, 3, 4, 0, 0, 0]]), cache=cache)
    for place in (5, 6, 7):
        step = model(
            tokens[:, place : place + 1],
            segments=torch.ones(1, 1, dtype=torch.long),
            positions=torch.tensor([[place]]),
            cache=cache,
        )
        torch.testing.assert_close(step[:, 0], whole[:, place], atol=1e-10, rtol=1e-10)
