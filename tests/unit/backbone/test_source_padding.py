"""Padding in the source of an encoder-decoder, wherever it stands and whatever it holds, changes nothing."""

from __future__ import annotations

import pytest
import torch

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.transformer import Transformer

LAYOUTS = {"right": [1, 1, 1, 1, 0, 0], "left": [0, 0, 1, 1, 1, 1], "both sides": [0, 1, 1, 1, 1, 0]}


def build(**given: object) -> Transformer:
    torch.manual_seed(0)
    shape = {"n_layers": 2, "n_encoder_layers": 3, "d_model": 16, "n_heads": 4, "vocab_size": 40, "max_length": 12}
    config = TransformerConfig(arrangement="encoder_decoder", init_std=0.3, **shape, **given)
    model = Transformer(config).double().eval()
    init_weights(model, config)
    return model


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("positions", ["rotary", "learned", "sinusoidal", "none"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@torch.no_grad()
def test_a_padded_source_is_the_source(layout, positions, placement):
    model = build(positions=positions, norm_placement=placement, n_kv_heads=2)
    target, segments = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([layout])
    source = torch.tensor([[11, 12, 13, 14]])
    expected = model(target, source_tokens=source)
    for filler in (0, 39):
        padded = torch.full((1, 6), filler)
        padded[segments > 0] = source[0]
        torch.testing.assert_close(model(target, source_tokens=padded, source_segments=segments), expected)
        memory = model.encode(padded, segments)
        cache = model.new_cache(1, 5)
        parts = [
            model(part, memory=memory, source_segments=segments, cache=cache) for part in target.split([2, 1, 2], 1)
        ]
        torch.testing.assert_close(torch.cat(parts, 1), expected)
    other = source.clone()
    other[0, 0] = 20
    assert (model(target, source_tokens=other) - expected).abs().amax(-1).min() > 1e-6  # the source is heard everywhere


@torch.no_grad()
def test_a_source_of_padding_alone_stays_finite_and_alone():
    model = build()
    target, sources = torch.tensor([[1, 2, 3]] * 2), torch.tensor([[11, 12, 13], [7, 8, 9]])
    segments = torch.tensor([[1, 1, 1], [0, 0, 0]])
    found = model(target, source_tokens=sources, source_segments=segments)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[:1], model(target[:1], source_tokens=sources[:1]))
    sources[1] = 3
    torch.testing.assert_close(model(target, source_tokens=sources, source_segments=segments), found)
