"""Packed weights give the products of the plain ones, and leave nothing behind."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from models import EOS, PROMPTS, build
from torch import nn

from lightning_nlp.decoding import prepacked as module
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import generate
from lightning_nlp.decoding.prepacked import LEAST_STEPS, LEAST_STEPS_ALONE, pack, prepacked

available = pytest.mark.skipif(
    pack(torch.ones(8, 8), 4) is None, reason="this PyTorch cannot pack weights: the plain products are used"
)


class Scaled(nn.Linear):
    """A sub-class with a product of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.scaled = nn.Linear(96, 64), nn.Linear(64, 80, bias=False), Scaled(80, 16)
        self.embedding = nn.Embedding(300, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.scaled(self.second(self.first(x))), self.embedding.weight)


def replaced(model: nn.Module) -> list[str]:
    return [name for name, child in model.named_modules() if "forward" in vars(child)]


@available
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("shape", [(4, 96), (64, 96), (2, 3, 96)])
@torch.no_grad()
def test_products_agree(dtype, tolerance, shape):
    model = Model().to(dtype)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = model(x)
    with prepacked(model, rows=4) as mode:
        assert replaced(model) == ["first", "second"]
        with mode:
            found = model(x)
            again = model(x)
        assert [weight.shape for weight, _ in mode.known.values()] == [(16, 80), (300, 16)]
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    assert torch.equal(found, again)
    assert replaced(model) == []
    assert torch.equal(model(x), expected)


@available
def test_everything_returns_after_an_error():
    model = Model()
    with torch.no_grad(), pytest.raises(RuntimeError, match="broken"), prepacked(model, rows=4):
        raise RuntimeError("broken")
    assert replaced(model) == []
    model(torch.randn(2, 96)).sum().backward()
    assert model.first.weight.grad is not None


@available
@torch.no_grad()
def test_nothing_happens_where_packing_cannot_be_of_use(monkeypatch):
    def plain(model: nn.Module, **given: int) -> bool:
        with prepacked(model, **{"rows": 4, **given}) as mode:
            return mode is None and replaced(model) == []

    model = Model()
    assert plain(model, steps=LEAST_STEPS - 1)
    assert not plain(model, steps=LEAST_STEPS)
    assert plain(model, steps=LEAST_STEPS_ALONE - 1, rows=1)
    assert plain(copy.deepcopy(model).double())
    assert plain(nn.ReLU())
    with torch.enable_grad():
        assert plain(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert plain(model)
    monkeypatch.setattr(module, "pack", lambda weight, rows: None)  # another PyTorch, without these operators
    with prepacked(model, rows=4) as mode, mode:
        assert replaced(model) == []
        torch.testing.assert_close(model(torch.ones(2, 96)), Model()(torch.ones(2, 96)))


def test_matrices_that_are_not_packed():
    assert pack(torch.ones(8, 8, dtype=torch.float64), 4) is None
    assert pack(torch.ones(8), 4) is None
    assert pack(torch.ones(8, 8, device="meta"), 4) is None


@available
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("arrangement", ["decoder", "encoder_decoder"])
def test_generation_with_packed_weights_gives_the_same_tokens(arrangement, beams, monkeypatch):
    model = build(arrangement=arrangement, max_length=64)
    source = {"memory": torch.randn(4, 5, 32)} if arrangement == "encoder_decoder" else {}
    seen = []

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(replaced(model)))
        return F.linear(hidden, model.token_embedding.weight)

    def run() -> list[list[int]]:
        seen.clear()
        settings = GenerationConfig(max_new_tokens=40, beams=beams)
        return generate(model, logits, PROMPTS, settings, eos_id=EOS, pad_id=0, **source)

    packed = run()
    assert min(seen) >= 8
    monkeypatch.setattr(module, "LEAST_STEPS", 99)
    assert run() == packed
    assert max(seen) <= 2 * bool(
        source
    )  # but for the cross-attention of both layers, which is watched for other reasons
    assert replaced(model) == []
