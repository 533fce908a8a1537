"""What the arithmetic says a forward pass keeps, beside what autograd keeps."""

from __future__ import annotations

import pytest
import torch

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.footprint import Bytes, activations, scores_of_tokens
from lightning_nlp.backbone.loss import linear_cross_entropy
from lightning_nlp.backbone.transformer import Transformer

ROWS, LENGTH, SOURCE = 4, 128, 96
SHAPE = {"n_layers": 3, "d_model": 64, "n_heads": 4, "vocab_size": 50, "max_length": 256}
CONFIGS = [
    {},
    {"positions": "learned", "bias": True},
    {"feedforward": "swiglu"},
    {"feedforward": "relu", "norm_placement": "post"},
    {"norm": "rmsnorm", "n_kv_heads": 1},
    {"norm_placement": "sandwich"},
    {"dropout": 0.1},
    {"attention_softcap": 30.0},
    {"positions": "relative"},
    {"attention": "additive", "positions": "none"},
    {"qk_norm": True},
    {"arrangement": "encoder"},
    {"arrangement": "encoder_decoder", "n_encoder_layers": 2},
    {"arrangement": "encoder_decoder", "positions": "learned", "feedforward": "geglu", "dropout": 0.1},
]


class Kept:
    """Bytes of tensors that autograd keeps, each storage once, without parameters and token ids."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
        self.held: dict[int, torch.Tensor] = {}

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if tensor.is_floating_point() and place not in self.own:
            self.held[place] = tensor
        return tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self.held.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", CONFIGS, ids=lambda parts: "-".join(map(str, parts.values())) or "plain")
def test_activations_are_those_that_autograd_keeps(parts, dtype):
    torch.manual_seed(0)
    config = TransformerConfig(**SHAPE, **parts)
    model = Transformer(config).to(dtype)
    segments = torch.ones(ROWS, LENGTH, dtype=torch.long)
    segments[:, -1] = 2  # documents in rows, nearly as long as the rows
    inputs = {"tokens": torch.randint(50, (ROWS, LENGTH)), "segments": segments}
    if paired := config.arrangement == "encoder_decoder":
        inputs["source_tokens"] = torch.randint(50, (ROWS, SOURCE))
        inputs["source_segments"] = torch.ones(ROWS, SOURCE, dtype=torch.long)
        inputs["segments"] = torch.ones_like(segments)
    kept = Kept(model)
    with torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor):
        model(**inputs)
    size = dtype.itemsize
    found = activations(config, ROWS, LENGTH, SOURCE if paired else 0, Bytes(size, size))
    assert kept.bytes == pytest.approx(found.stream + found.inner, rel=0.10)


@pytest.mark.parametrize(("rows", "vocabulary"), [(64, 1000), (2000, 3000), (4000, 20_000)])
def test_scores_at_the_loss(rows, vocabulary):
    """Peak of allocations during the loss, as PyTorch's profiler of memory sees it."""
    config = TransformerConfig(**{**SHAPE, "vocab_size": vocabulary})
    hidden, weight = torch.randn(rows, 64, requires_grad=True), torch.randn(vocabulary, 64, requires_grad=True)
    labels = torch.randint(vocabulary, (rows,))
    hidden.grad, weight.grad = torch.zeros_like(hidden), torch.zeros_like(weight)  # as in every step but the first
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        total, _ = linear_cross_entropy(hidden, weight, labels)
        total.backward()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert scores_of_tokens(config, rows, Bytes()) == pytest.approx(peak, rel=0.25)


def test_longer_rows_cost_no_more_than_they_hold_while_attention_is_fused():
    config = TransformerConfig(**SHAPE)
    one, two = (activations(config, 1, length, on_cpu=False) for length in (128, 256))
    assert two.inner == 2 * one.inner and two.stream == 2 * one.stream
    capped = config.replace(attention_softcap=10.0)
    one, two = (activations(capped, 1, length, on_cpu=False) for length in (128, 256))
    assert two.inner > 2.4 * one.inner


def test_scores_on_a_gpu_are_held_in_larger_pieces():
    """16384 rows of GPT-2's vocabulary in bfloat16 and their gradient: 3.3 GB."""
    config = TransformerConfig(**{**SHAPE, "vocab_size": 50304})
    held = 2 * 16384 * 50304 * 2
    found = scores_of_tokens(config, 32768, Bytes(4, 2), on_cpu=False)
    assert found == pytest.approx(held, rel=0.02)
    assert scores_of_tokens(config.replace(vocab_size=8192), 4096, Bytes(4, 2), on_cpu=False) == 4096 * 8192 * 14


@pytest.mark.parametrize("arrangement", ["decoder", "encoder_decoder"])
def test_blocks_that_forget_keep_less(arrangement):
    config = TransformerConfig(**{**SHAPE, "n_layers": 12, "arrangement": arrangement})
    sizes = []
    for kind in (None, "selective", "full"):
        found = activations(config, ROWS, LENGTH, SOURCE, recomputed=kind)
        sizes.append(found.stream + found.inner)
    assert sizes[0] > 1.3 * sizes[1] > 2 * sizes[2]
