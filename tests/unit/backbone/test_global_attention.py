"""Longformer's attention (window and global tokens) against its definition, in float64."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_nlp.backbone import attention
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.transformer import Transformer


def on_paper(layer, x, segments, spots, window, heads):
    """Local queries see the window and global keys; global queries see their whole document, with other matrices."""
    batch, length, width = x.shape
    d = width // heads
    local = [part.view(batch, length, heads, d) for part in layer.query_key_value(x).chunk(3, -1)]
    far = [part.view(batch, length, heads, d) for part in layer.global_query_key_value(x).chunk(3, -1)]
    mixed = torch.zeros_like(x).view(batch, length, heads, d)
    for b in range(batch):
        for t in range(length):
            if segments[b, t] == 0:
                continue
            query, key, value = far if spots[b, t] else local
            seen = [
                s
                for s in range(length)
                if segments[b, s] == segments[b, t] and (spots[b, t] or spots[b, s] or abs(s - t) < window)
            ]
            for h in range(heads):
                scores = torch.stack([query[b, t, h] @ key[b, s, h] / math.sqrt(d) for s in seen])
                mixed[b, t, h] = scores.softmax(0) @ value[b, seen, h]
    return layer.output(mixed.flatten(2))


@pytest.mark.parametrize("block", [3, 64])
@pytest.mark.parametrize("window", [2, 5])
def test_equals_the_definition(monkeypatch, window, block):
    monkeypatch.setattr(attention, "BAND_BLOCK", block)  # 3: as a band; 64: with a mask
    torch.manual_seed(0)
    config = TransformerConfig(
        arrangement="encoder", positions="none", n_layers=1, d_model=8, n_heads=2, vocab_size=20, window=window,
        global_tokens=1, bias=True,
    )  # fmt: skip
    model = Transformer(config).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    segments = torch.tensor([[1] * 17 + [0] * 3, [1] * 6 + [2] * 14])
    spots = torch.zeros(2, 20, dtype=torch.bool)
    spots[0, [0, 9]] = spots[1, [0, 6, 7, 19]] = True
    tokens = torch.randint(0, 20, (2, 20))
    layer, (inputs, outputs) = model.encoder.layers[0].attention, ([], [])
    layer.register_forward_hook(
        lambda module, given, output: (inputs.append(given[0]), outputs.append(output))[1:0] or None
    )
    model(tokens, segments=segments, global_mask=spots)
    expected = on_paper(layer, inputs[0], segments, spots, window, 2)
    real = segments > 0
    torch.testing.assert_close(outputs[0][real], expected[real], atol=1e-10, rtol=1e-10)


def test_the_first_tokens_of_every_document_are_global_by_default():
    torch.manual_seed(0)
    config = TransformerConfig(
        arrangement="encoder", n_layers=1, d_model=8, n_heads=2, vocab_size=20, window=2, global_tokens=1
    )
    model = Transformer(config).double().eval()
    tokens, segments = torch.randint(0, 20, (1, 16)), torch.tensor([[1] * 7 + [2] * 9])
    spots = torch.zeros(1, 16, dtype=torch.bool)
    spots[0, [0, 7]] = True
    torch.testing.assert_close(model(tokens, segments=segments), model(tokens, segments=segments, global_mask=spots))
    other = tokens.clone()
    other[0, 6] = (tokens[0, 6] + 1) % 20  # far from token 0, which sees it; token 2 sees neither
    changed = (model(tokens, segments=segments) - model(other, segments=segments)).abs().amax(-1)[0] > 1e-9
    assert changed.tolist() == [True, False, False, False, False, True, True, *[False] * 9]


def test_gradients_reach_both_sets_of_matrices():
    config = TransformerConfig(
        arrangement="encoder", d_model=8, n_heads=2, vocab_size=20, window=2, global_tokens=2, positions="rotary"
    )
    model = Transformer(config)
    model(torch.randint(0, 20, (2, 16))).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
