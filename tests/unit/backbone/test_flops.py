"""FLOPs by arithmetic beside FLOPs counted by PyTorch, and beside the closed forms that are published."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightning_nlp.backbone.adapters import AdapterConfig, attach
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.counting import Work, flops_per_token, matrices, training_flops
from lightning_nlp.backbone.transformer import Transformer

SHAPE = {"n_layers": 2, "d_model": 32, "n_heads": 4, "d_ff": 48, "vocab_size": 50, "max_length": 64}
ROWS, LENGTH, SOURCE = 3, 16, 24
# A cap on scores makes them visible: attention is then two plain products, which the counter sees.
CONFIGS = [
    {"arrangement": "decoder"},
    {"arrangement": "encoder"},
    {"arrangement": "encoder_decoder", "n_encoder_layers": 3},
    {"arrangement": "encoder_decoder", "n_kv_heads": 2, "feedforward": "swiglu"},
    {"arrangement": "decoder", "n_kv_heads": 1, "feedforward": "geglu", "positions": "learned", "bias": True},
    {"arrangement": "decoder", "norm_placement": "post", "d_head": 16, "positions": "relative"},
]


def counted(config: TransformerConfig, adapter: AdapterConfig | None = None) -> float:
    """FLOPs that PyTorch sees in a forward and a backward pass, scores of all tokens included."""
    torch.manual_seed(0)
    model = Transformer(config)
    if adapter is not None:
        attach(model, adapter, config)
        for name, weight in model.named_parameters():
            weight.requires_grad_(".adapter." in name)
    inputs = {"tokens": torch.randint(50, (ROWS, LENGTH))}
    if config.arrangement == "encoder_decoder":
        inputs["source_tokens"] = torch.randint(50, (ROWS, SOURCE))
    counter = FlopCounterMode(display=False)
    with counter:
        (model(**inputs) @ model.embedding_weight.T).sum().backward()
    return counter.get_total_flops()


def work(config: TransformerConfig) -> Work:
    source = ROWS * SOURCE if config.arrangement == "encoder_decoder" else 0
    return Work(ROWS, ROWS * LENGTH, ROWS * LENGTH, source)


@pytest.mark.parametrize("parts", CONFIGS, ids=lambda parts: "-".join(map(str, parts.values())))
def test_arithmetic_is_what_pytorch_counts(parts):
    config = TransformerConfig(**SHAPE, **parts, attention_softcap=30.0)
    assert training_flops(config, work(config)) == counted(config)


def test_frozen_matrices_need_no_gradient_of_their_own():
    config = TransformerConfig(**SHAPE, attention_softcap=30.0)
    adapter = AdapterConfig(kind="lora", rank=4)
    tokens, inner = ROWS * LENGTH, 32
    extra = 2 * config.n_layers * (4 * inner + 4 * inner)  # query and value, A and B each
    nothing = {"tokens": 0, "source": 0, "labels": 0}
    found = training_flops(config, work(config), trained=nothing, extra={"tokens": extra})
    # What the embedding hands to the first layer needs no gradient, of which the convention knows nothing.
    first = 2 * tokens * (3 * inner * inner + 2 * 4 * inner)
    assert found - first == counted(config, adapter)
    full = training_flops(config, work(config))
    assert full - found == 2 * tokens * sum(matrices(config).values()) - 6 * tokens * extra


def test_the_published_convention():
    """``(6 N + 12 L d T)`` a token for GPT-2 at 1,024 tokens, N with the output head and without the input embedding."""
    config = TransformerConfig(size="base", vocab_size=50257, positions="learned", bias=True)
    n = 12 * (4 * 768**2 + 8 * 768**2) + 50257 * 768
    assert flops_per_token(config, 1024) == 6 * n + 12 * 12 * 768 * 1024
    assert flops_per_token(config, 1024, "causal") == 6 * n + 6 * 12 * 768 * 1024


@pytest.mark.parametrize("window", [1, 4, 15, 16, 40])
@pytest.mark.parametrize("arrangement", ["decoder", "encoder"])
def test_windows_let_a_query_see_less(window, arrangement):
    config = TransformerConfig(**SHAPE, arrangement=arrangement, window=window)
    rest = 6 * sum(matrices(config).values())
    seen = {name: (flops_per_token(config, 16, name) - rest) / (12 * 2 * 32) for name in ("palm", "causal")}
    at = torch.arange(16)
    distance = at[:, None] - at[None]
    if arrangement == "encoder":
        assert seen["palm"] == seen["causal"] == min(2 * window - 1, 16)
    else:
        real = ((distance >= 0) & (distance < window)).sum(1).double().mean()
        assert seen["palm"] == min(window, 16)
        assert abs(seen["causal"] - real) <= 0.51  # the diagonal counts half


def test_only_labelled_positions_meet_the_output_matrix():
    config = TransformerConfig(**SHAPE, arrangement="encoder")
    all_of, some = (training_flops(config, Work(1, 16, labels)) for labels in (16, 2))
    assert all_of - some == 14 * 6 * 50 * 32
    assert training_flops(config, Work(1, 16, 1), outputs=3) == some - 2 * 6 * 50 * 32 + 6 * 3 * 32


def test_no_work_no_flops():
    assert training_flops(TransformerConfig(**SHAPE), Work(0, 0, 0)) == 0


def test_memory_is_seen_as_well():
    plain = TransformerConfig(**SHAPE)
    longer = plain.replace(memory_length=8)
    assert flops_per_token(longer, 16) - flops_per_token(plain, 16) == 12 * 2 * 32 * 8
