"""Blocks that compute again give the same values and gradients, and remember less."""

from __future__ import annotations

import pytest
import torch

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.recompute import recompute
from lightning_nlp.backbone.transformer import Transformer

CASES = {
    "rotary": {"arrangement": "decoder", "dropout": 0.1},
    "relative": {"arrangement": "encoder_decoder", "positions": "relative"},
    "relative packed": {"arrangement": "decoder", "positions": "relative", "packed": True},
    "alibi softcap": {"arrangement": "decoder", "positions": "alibi", "attention_softcap": 5.0, "packed": True},
    "longformer": {"arrangement": "encoder", "window": 4, "global_tokens": 1},
    "parallel": {"arrangement": "decoder", "parallel_residual": True, "feedforward": "swiglu"},
}


def model_and_batch(packed=False, **options):
    torch.manual_seed(0)
    config = TransformerConfig(vocab_size=31, n_layers=3, d_model=32, n_heads=4, max_length=64, **options)
    model = Transformer(config)
    init_weights(model, config)
    tokens = torch.randint(1, 31, (2, 24))
    segments = torch.ones_like(tokens)
    if packed:
        segments[:, 9:], segments[1, 20:] = 2, 0
    batch = {"segments": segments}
    if config.arrangement == "encoder_decoder":
        batch["source_tokens"] = torch.randint(1, 31, (2, 17))
    return model, tokens, batch


def step(model, tokens, batch):
    """Loss, gradients, and the elements that autograd kept for the backward pass."""
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(tokens, **batch).square().sum()
    held = sum(kept)
    loss.backward()
    return loss.detach(), {name: value.grad for name, value in model.named_parameters()}, held


@pytest.mark.parametrize("kind", ["selective", "full"])
@pytest.mark.parametrize("name", CASES)
def test_the_same_values_and_gradients(name, kind):
    loss, gradients, held = step(*model_and_batch(**CASES[name]))
    model, tokens, batch = model_and_batch(**CASES[name])
    for block in model.blocks():
        recompute(block, kind)
    again, recomputed, less = step(model, tokens, batch)
    assert again == loss
    for key, value in gradients.items():
        torch.testing.assert_close(recomputed[key], value, rtol=1e-5, atol=1e-5)
    if kind == "full":  # what selective keeps is not counted by these hooks
        assert less < held / 4
    model.eval()
    with torch.no_grad():
        model(tokens, **batch)
