"""Recorded attention weights are those that the kernels used, and recording changes nothing."""

from __future__ import annotations

import pytest
import torch

from lightning_nlp.backbone.attention_maps import recorded
from lightning_nlp.backbone.block import Attention
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.transformer import Transformer

SHAPE = {"n_layers": 2, "d_model": 32, "n_heads": 4, "vocab_size": 50, "max_length": 64, "init_std": 0.4}
KINDS = {
    "encoder": {"arrangement": "encoder"},
    "gqa": {"arrangement": "decoder", "n_kv_heads": 2, "qk_norm": True},
    "alibi": {"arrangement": "decoder", "positions": "alibi"},
    "relative": {"arrangement": "encoder", "positions": "relative"},
    "window": {"arrangement": "decoder", "window": 4},
    "cap": {"arrangement": "decoder", "attention_softcap": 2.0},
    "additive": {"arrangement": "decoder", "attention": "additive", "positions": "learned"},
    "both": {"arrangement": "encoder_decoder"},
}


def build(kind):
    torch.manual_seed(0)
    config = TransformerConfig(**SHAPE, **KINDS[kind])
    backbone = Transformer(config)
    init_weights(backbone, config)
    return backbone.eval()


def inputs(kind):
    segments = torch.tensor([[1] * 5 + [2] * 6 + [0], [1] * 9 + [0] * 3])
    given = {"tokens": torch.randint(50, (2, 12)), "segments": segments}
    if kind == "both":
        given |= {
            "source_tokens": torch.randint(50, (2, 7)),
            "source_segments": torch.tensor([[1] * 4 + [2] * 3, [1] * 5 + [0] * 2]),
        }
    return given


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_weights_times_values_are_the_output(kind, monkeypatch):
    backbone, given = build(kind), inputs(kind)
    plain = backbone(**given)
    calls, mix = [], Attention.mix

    def noted(self, query, key, value, mask, bias):
        out = mix(self, query, key, value, mask, bias)
        calls.append((value.repeat_interleave(self.heads // value.shape[1], dim=1), out))
        return out

    monkeypatch.setattr(Attention, "mix", noted)
    with recorded(backbone) as maps:
        assert torch.equal(backbone(**given), plain)
    stacks = ["encoder", "decoder"] if kind == "both" else [KINDS[kind]["arrangement"]]
    kinds = {"encoder": ["self"], "decoder": ["self", "cross"] if kind == "both" else ["self"]}
    expected = [(stack, one, layer, 2) for stack in stacks for layer in range(2) for one in kinds[stack]]
    assert [(one.stack, one.kind, one.layer, one.layers) for one in maps] == expected
    for one, (value, out) in zip(maps, calls, strict=True):
        torch.testing.assert_close((one.weights @ value).transpose(1, 2).flatten(2), out, atol=1e-5, rtol=1e-4)
        sums = one.weights.sum(-1)
        assert ((sums - 1).abs().lt(1e-5) | sums.eq(0)).all()


@torch.no_grad()
def test_afterwards_nothing_is_kept_even_after_an_error():
    backbone, given = build("both"), inputs("both")
    with pytest.raises(ZeroDivisionError), recorded(backbone) as maps:
        raise ZeroDivisionError
    backbone(**given)
    assert maps == [] and not any("mix" in vars(module) for module in backbone.modules())
