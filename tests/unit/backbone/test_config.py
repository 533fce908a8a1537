"""TransformerConfig: what it fills in, what it refuses, and how it counts."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from lightning_nlp.backbone.config import SIZES, TransformerConfig
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError

ARRANGEMENTS = ["encoder", "decoder", "encoder_decoder"]


def parameters(config: TransformerConfig) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in Transformer(config).parameters())


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"n_layers": 2, "d_model": 128, "n_heads": 4, "n_kv_heads": 4, "d_head": 32, "d_ff": 512}),
        ({"size": "base"}, {"n_layers": 12, "d_model": 768, "d_head": 64, "d_ff": 3072}),
        ({"size": "base", "d_model": 384}, {"n_layers": 12, "d_model": 384, "d_head": 32, "d_ff": 1536}),
        ({"size": "mini", "d_ff": 100, "n_layers": 1}, {"d_model": 256, "d_ff": 100, "n_layers": 1}),
        ({"feedforward": "swiglu"}, {"d_ff": 384}),  # 8/3 of 128 is 341.3
        ({"feedforward": "swiglu", "d_model": 384}, {"d_ff": 1024}),  # 8/3 of 384, a multiple of 64 already
        ({"d_model": 100, "n_heads": 3, "d_head": 8}, {"d_head": 8}),
        ({"arrangement": "encoder_decoder", "n_layers": 3}, {"n_encoder_layers": 3}),
        ({"arrangement": "encoder_decoder", "n_encoder_layers": 5}, {"n_encoder_layers": 5, "n_layers": 2}),
    ],
)
def test_fields_left_out_come_from_the_size_or_each_other(given, expected):
    config = TransformerConfig(**given)
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.given == given


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"size": "smal"}, ["backbone.size 'smal'", "did you mean 'small'?"]),
        ({"positions": "rotry"}, ["backbone.positions 'rotry'", "did you mean 'rotary'?"]),
        ({"feedforward": "relu6"}, ["backbone.feedforward 'relu6'", "did you mean 'relu'", "geglu_tanh"]),
        ({"d_model": 100, "n_heads": 3}, ["n_heads 3", "d_model 100", "take 2 heads"]),
        ({"n_heads": 4, "n_kv_heads": 3}, ["n_kv_heads 3", "n_heads 4", "nearest that does is 2"]),
        ({"d_head": 7}, ["positions rotary", "d_head", "7"]),
        ({"positions": "sinusoidal", "d_model": 15, "n_heads": 3}, ["positions sinusoidal", "d_model", "15"]),
        ({"dropout": 1.0}, ["dropout", "[0, 1)"]),
        ({"dropout": float("nan")}, ["dropout"]),
        ({"norm_eps": 0.0}, ["norm_eps"]),
        ({"max_length": 0}, ["max_length must be at least 1"]),
        ({"vocab_size": -1}, ["vocab_size must be at least 1"]),
        ({"vocab_size": 10, "pad_id": 10}, ["pad_id 10", "vocab_size 10"]),
        ({"n_encoder_layers": 2}, ["n_encoder_layers", "encoder_decoder", "decoder"]),
        ({"arrangement": "encoder_decoder", "n_encoder_layers": 0}, ["n_encoder_layers must be at least 1"]),
        ({"dropout": -1, "n_kv_heads": 3, "rotary_base": 0}, ["dropout", "n_kv_heads", "rotary_base"]),
    ],
)
def test_mistakes_are_named_in_one_line(given, parts):
    with pytest.raises(ConfigError) as error:
        TransformerConfig(**given)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_a_mistake_is_reported_once():
    with pytest.raises(ConfigError) as error:
        TransformerConfig(d_model=-8)
    assert str(error.value) == "backbone.d_model must be at least 1, not -8"


def test_to_dict_and_replace_keep_everything():
    config = TransformerConfig(size="mini", arrangement="encoder_decoder", feedforward="swiglu", n_kv_heads=2)
    assert TransformerConfig(**config.to_dict()) == config
    changed = config.replace(vocab_size=99, dropout=0.1)
    assert changed != config
    assert changed.replace(vocab_size=None, dropout=0.0) == config
    assert hash(TransformerConfig(**config.to_dict())) == hash(config)


OPTIONS = {
    "arrangement": ARRANGEMENTS,
    "positions": ["rotary", "learned", "sinusoidal", "none"],
    "norm": ["layernorm", "rmsnorm"],
    "norm_placement": ["pre", "post"],
    "feedforward": ["gelu", "swiglu"],
    "bias": [False, True],
}


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_num_params_is_what_the_module_has(arrangement):
    for values in itertools.product(*list(OPTIONS.values())[1:]):
        parts = dict(zip(list(OPTIONS)[1:], values, strict=True))
        config = TransformerConfig(
            arrangement=arrangement, vocab_size=50, n_heads=6, n_kv_heads=2, d_model=24, d_head=6, max_length=9, **parts
        )
        assert config.num_params() == parameters(config), parts


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_every_size_builds_on_the_meta_device(size, arrangement):
    config = TransformerConfig(size=size, arrangement=arrangement, vocab_size=50257, positions="learned")
    assert config.num_params() == parameters(config)


@pytest.mark.parametrize(
    ("size", "max_length", "vocab_size", "published"),
    [  # parameter counts of the released GPT-2 checkpoints
        ("base", 1024, 50257, 124_439_808),
        ("medium", 1024, 50257, 354_823_168),
        ("large", 1024, 50257, 774_030_080),
    ],
)
def test_gpt2_sizes_are_those_published(size, max_length, vocab_size, published):
    config = TransformerConfig(size=size, vocab_size=vocab_size, max_length=max_length, positions="learned", bias=True)
    assert config.num_params() == published


def test_counting_the_embedding_needs_a_vocabulary():
    config = TransformerConfig()
    assert config.num_params(embeddings=False) > 0
    with pytest.raises(ConfigError, match="vocab_size"):
        config.num_params()


@pytest.mark.parametrize(
    ("given", "matrices", "attentions"),
    [
        ({"arrangement": "decoder"}, 3 * (4 * 32 * 32 + 2 * 32 * 128), 3),
        ({"arrangement": "encoder"}, 3 * (4 * 32 * 32 + 2 * 32 * 128), 3),
        ({"feedforward": "swiglu"}, 3 * (4 * 32 * 32 + 3 * 32 * 128), 3),
        ({"n_kv_heads": 1}, 3 * (2 * 32 * 32 + 2 * 32 * 8 + 2 * 32 * 128), 3),
        ({"positions": "learned", "bias": True}, 3 * (4 * 32 * 32 + 2 * 32 * 128), 3),
        (
            {"arrangement": "encoder_decoder", "n_encoder_layers": 1},
            1 * (4 * 32 * 32 + 2 * 32 * 128) + 3 * (8 * 32 * 32 + 2 * 32 * 128),
            1 + 2 * 3,
        ),
    ],
)
def test_flops_follow_the_convention_of_palm(given, matrices, attentions):
    config = TransformerConfig(n_layers=3, d_model=32, n_heads=4, d_ff=128, vocab_size=100, **given)
    assert config.flops_per_token(64) == 6 * (matrices + 100 * 32) + 12 * attentions * 32 * 64


def test_the_configuration_needs_no_torch():
    code = "import sys, lightning_nlp.backbone.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
