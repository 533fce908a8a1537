"""Positions: published formulas, and the properties they are used for."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.positions import POSITIONS, positions_of
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([1, 1, 1, 1], [0, 1, 2, 3]),
        ([1, 1, 0, 0], [0, 1, 0, 0]),
        ([0, 0, 1, 1], [0, 0, 0, 1]),
        ([1, 1, 2, 2], [0, 1, 0, 1]),
        ([1, 2, 3, 0], [0, 0, 0, 0]),
        ([5, 5, 0, 5], [0, 1, 0, 0]),
    ],
)
def test_positions_start_anew_in_each_segment(segments, expected):
    assert positions_of(torch.tensor([segments])).tolist() == [expected]


def test_sinusoids_are_those_of_the_paper():
    config = TransformerConfig(positions="sinusoidal", d_model=6, n_heads=1, d_head=6)
    waves = POSITIONS["sinusoidal"](config)(torch.zeros(1, 40, 6, dtype=torch.float64), torch.arange(40)[None])[0]
    for position in (0, 1, 7, 39):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert waves[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert waves[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_sinusoids_tell_positions_apart_where_one_scalar_formula_does_not():
    # A formula found in print, sin(p / 10000^2) + cos(p / 10000^2) in every dimension, hardly changes over a text.
    config = TransformerConfig(positions="sinusoidal", d_model=16, n_heads=1)
    positions = torch.arange(512)
    waves = POSITIONS["sinusoidal"](config)(torch.zeros(1, 512, 16), positions[None])[0]
    apart = torch.cdist(waves, waves) + torch.eye(512) * 9
    flawed = (positions / 10000**2).sin() + (positions / 10000**2).cos()
    assert apart.min() > 0.1
    assert flawed.max() - flawed.min() < 1e-4


def test_embeddings_beside_sinusoids_are_scaled_as_in_the_paper():
    config = TransformerConfig(positions="sinusoidal", d_model=16, n_heads=1, vocab_size=5)
    assert config.scale_embeddings and not TransformerConfig(positions="learned").scale_embeddings
    model = Transformer(config)
    torch.nn.init.ones_(model.token_embedding.weight)
    torch.testing.assert_close(model._embed(torch.tensor([[3]]), None), torch.full((1, 1, 16), 4.0))


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_shifted_positions_differ_from_row_to_row_in_training_alone(positions):
    config = TransformerConfig(vocab_size=7, d_model=8, n_heads=2, max_length=16, positions=positions, position_shift=9)
    module, places = POSITIONS[positions](config), torch.arange(5)[None]
    still = module.eval()(torch.zeros(64, 5, 8), places)
    assert (still == still[:1]).all()
    moved = module.train()(torch.zeros(64, 5, 8), places)
    beginnings = {tuple(row[0].tolist()) for row in moved}
    assert 8 <= len(beginnings) <= 10  # positions 0 to 9
    everywhere = module.eval()(torch.zeros(1, 14, 8), torch.arange(14)[None])[0]
    for row in moved:  # a shifted row is a piece of the longer one
        assert any(torch.equal(row, everywhere[start : start + 5]) for start in range(10))


def test_only_positions_with_an_origin_are_shifted():
    with pytest.raises(
        ConfigError, match="position_shift needs positions learned or sinusoidal: rotary have no origin"
    ):
        TransformerConfig(vocab_size=7, d_model=8, n_heads=2, position_shift=9)


def test_rotary_scores_depend_on_the_distance_alone():
    config = TransformerConfig(d_model=16, n_heads=1)
    rotary = POSITIONS["rotary"](config)
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 16, generator=generator, dtype=torch.float64) for _ in range(2))

    def score(at: int, to: int) -> float:
        turned = [rotary.rotation(torch.tensor([[p]]), torch.float64)(x) for p, x in ((at, query), (to, key))]
        return (turned[0] * turned[1]).sum().item()

    assert score(5, 3) == pytest.approx(score(905, 903), abs=1e-9)
    assert score(5, 3) != pytest.approx(score(5, 2), abs=1e-3)


def test_rotary_turns_pairs_half_a_head_apart():
    config = TransformerConfig(d_model=4, n_heads=1, rotary_base=100.0)
    x = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).view(1, 1, 1, 4)
    turned = POSITIONS["rotary"](config).rotation(torch.tensor([[2]]), torch.float64)(x).flatten().tolist()
    for i, angle in enumerate((2.0, 2.0 / 10)):
        a, b = x.flatten()[i].item(), x.flatten()[i + 2].item()
        assert turned[i] == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-12)
        assert turned[i + 2] == pytest.approx(b * math.cos(angle) + a * math.sin(angle), abs=1e-12)


def test_rotation_keeps_the_dtype_of_what_it_turns():
    rotation = POSITIONS["rotary"](TransformerConfig()).rotation(torch.arange(3)[None], torch.float32)
    assert rotation is not None
    assert rotation(torch.ones(1, 4, 3, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
