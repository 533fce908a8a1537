"""Muon against singular values, torch.optim.Muon and AdamW; matrices stacked in one weight; widths."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import learning_rate_scale
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim import muon
from lightning_nlp.optim.config import OptimizerConfig
from lightning_nlp.optim.matrices import block_matrices
from lightning_nlp.optim.muon import Muon, orthogonalised
from lightning_nlp.optim.optimizers import build_optimizer


def group(*weights, **settings):
    return {"params": list(weights), "muon": True, **settings}


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6), (1, 9)])
def test_singular_values_become_one_and_singular_vectors_stay(shape):
    matrix = random(3, *shape, dtype=torch.float64)
    found = orthogonalised(matrix, torch.float64)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    expected = values / values.square().sum(-1, keepdim=True).sqrt()
    for _ in range(5):  # Jordan et al. 2024, on singular values
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(found, left * expected[:, None, :] @ right, rtol=1e-8, atol=1e-10)
    assert float(expected.min()) > 0.65 and float(expected.max()) < 1.25
    narrow = orthogonalised(matrix)
    assert narrow.dtype == torch.bfloat16 and float((narrow - found).abs().max()) < 0.03


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_the_size_of_a_gradient_does_not_matter(scale):
    torch.testing.assert_close(orthogonalised(random(1, 4, 6) * scale), orthogonalised(random(1, 4, 6)))
    assert not orthogonalised(torch.zeros(1, 4, 6)).any()


def published(weight, gradients, lr, decay, beta, nesterov):
    """Jordan et al. 2024 with the size of Liu et al. 2025, singular values by decomposition; the momentum is a mean."""
    momentum = torch.zeros_like(weight)
    for gradient in gradients:
        momentum = beta * momentum + (1 - beta) * gradient
        left, values, right = torch.linalg.svd(
            beta * momentum + (1 - beta) * gradient if nesterov else momentum, full_matrices=False
        )
        values = values / values.norm()
        for _ in range(5):
            values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
        weight = weight - lr * decay * weight - lr * 0.2 * max(weight.shape) ** 0.5 * (left * values @ right)
    return weight


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_matrices_take_the_published_steps_and_pytorchs(shape, nesterov, monkeypatch):
    settings = {"lr": 0.02, "momentum": 0.9, "nesterov": nesterov}
    start, gradients = random(*shape, dtype=torch.float64), random(4, *shape, seed=1, dtype=torch.float64)

    def trained(make, dtype):
        weight = nn.Parameter(start.to(dtype, copy=True))
        optimizer = make(weight)
        for gradient in gradients:
            weight.grad = gradient.to(dtype)
            optimizer.step()
        return weight.detach().double()

    def make(weight):
        return Muon([group(weight, weight_decay=0.3)], **settings)

    narrow = trained(make, torch.float32)
    peer = trained(
        lambda weight: torch.optim.Muon([weight], weight_decay=0.3, adjust_lr_fn="match_rms_adamw", **settings),
        torch.float32,
    )
    exact = muon.orthogonalised
    monkeypatch.setattr(muon, "orthogonalised", lambda batch: exact(batch, torch.float64))
    wide, expected = trained(make, torch.float64), published(start, gradients, 0.02, 0.3, 0.9, nesterov)
    torch.testing.assert_close(wide, expected, rtol=1e-9, atol=1e-11)
    moved = float((expected - start).norm())
    assert moved > 0.1
    for iterated_in_bfloat16 in (narrow, peer):
        assert float((iterated_in_bfloat16 - expected).norm()) < 0.03 * moved


def test_all_else_takes_the_steps_of_adamw():
    vector, same, matrix = nn.Parameter(random(9)), nn.Parameter(random(9)), nn.Parameter(random(4, 4))
    rest = {"params": [vector], "muon": False, "weight_decay": 0.1}
    settings = {"lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-6, "fused": True}
    mine = Muon([rest, group(matrix)], **settings)
    peer = torch.optim.AdamW([same], weight_decay=0.1, **settings)
    for step in range(4):
        vector.grad, same.grad, matrix.grad = random(9, seed=step), random(9, seed=step), random(4, 4, seed=step)
        mine.param_groups[0]["lr"] = peer.param_groups[0]["lr"] = 0.02 / (step + 1)  # as a schedule does
        mine.step()
        peer.step()
    assert torch.equal(vector, same)


def test_stacked_matrices_are_orthogonalised_apart():
    whole = nn.Parameter(random(14, 8))
    parts = [nn.Parameter(part.clone()) for part in random(14, 8).split([8, 3, 3])]
    one, several = Muon([group(whole, rows=[(8, 3, 3)])], lr=0.1), Muon([group(*parts)], lr=0.1)
    for step in range(2):
        whole.grad = random(14, 8, seed=step + 1)
        for parameter, gradient in zip(parts, whole.grad.split([8, 3, 3]), strict=True):
            parameter.grad = gradient.clone()
        one.step()
        several.step()
    torch.testing.assert_close(whole.detach(), torch.cat([part.detach() for part in parts]), rtol=0, atol=1e-6)
    fused = nn.Parameter(random(14, 8))
    fused.grad = random(14, 8, seed=1)
    Muon([group(fused)], lr=0.1).step()
    assert float((fused - whole).detach().abs().max()) > 0.01


def test_many_matrices_are_taken_in_portions(monkeypatch):
    shapes = [(4, 4), (4, 8), (8, 4), (4, 4), (2, 2), (4, 8)]

    def trained():
        weights = [nn.Parameter(random(*shape, seed=number)) for number, shape in enumerate(shapes)]
        for number, weight in enumerate(weights):
            weight.grad = random(*weight.shape, seed=50 + number)
        Muon([group(*weights)], lr=0.1).step()
        return weights

    together, sizes = trained(), []
    monkeypatch.setattr(muon, "AT_ONCE", 40)
    portions = muon.portions
    monkeypatch.setattr(muon, "portions", lambda given: sizes.extend(portions(given)) or portions(given))
    apart = trained()
    assert sizes == [[0], [1], [2], [3, 4], [5]]  # 40 elements at most, or one matrix
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-3)


CONFIG = {"d_model": 16, "n_heads": 2, "n_kv_heads": 1, "n_layers": 2, "vocab_size": 21, "max_length": 8, "bias": True}


@pytest.mark.parametrize("arrangement", ["encoder", "decoder", "encoder_decoder"])
def test_who_is_a_matrix_inside_a_block(arrangement):
    config = TransformerConfig(arrangement=arrangement, tie_embeddings=False, positions="learned", **CONFIG)
    model = nn.ModuleDict({"backbone": Transformer(config), "head": nn.Linear(16, 3)})
    optimizer = build_optimizer(model, OptimizerConfig("muon"), matrices=lambda name: block_matrices(name, config))
    of = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {of[id(p)] for each in optimizer.param_groups if each["muon"] for p in each["params"]}
    named = dict(model.named_parameters())
    assert found == {name for name in named if ".layers." in name and named[name].ndim == 2}
    for parameter, rows in optimizer.rows.items():
        name = of[id(parameter)]
        expected = {"query_key_value.weight": (16, 8, 8), ".key_value.weight": (8, 8)}
        assert rows == next((rows for end, rows in expected.items() if name.endswith(end)), ())
        assert not rows or sum(rows) == parameter.shape[0], name
    decayed = {each["muon"]: each["weight_decay"] for each in optimizer.param_groups if each["name"] == "decayed"}
    assert decayed[True] == 0.1


def test_nothing_for_muon_is_refused():
    with pytest.raises(ConfigError, match="no matrix inside a block is trained: use adamw"):
        build_optimizer(nn.Linear(3, 3), OptimizerConfig("muon"))


def norms_of_changes(width: int, **settings) -> dict[str, float]:
    """Spectral norm of the first step's change of each matrix, as a share of what keeps activations' size."""
    config = TransformerConfig(**{**CONFIG, "d_model": width, "n_heads": width // 8, "n_kv_heads": None}, **settings)
    model = nn.ModuleDict({"backbone": Transformer(config)})
    optimizer = build_optimizer(
        model,
        OptimizerConfig("muon", lr=0.1, weight_decay=0.0),
        lambda name: learning_rate_scale(name, config),
        lambda name: block_matrices(name, config),
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = random(*parameter.shape, seed=number)
    for each in optimizer.param_groups:
        each["lr"] = each["initial_lr"]
    optimizer.step()
    change = {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}
    names = ("attention.output.weight", "feedforward.up.weight", "feedforward.down.weight")
    return {
        name: float(torch.linalg.matrix_norm(value, 2)) / math.sqrt(value.shape[0] / value.shape[1])
        for name, value in change.items()
        if name.endswith(names)
    }


def test_changes_keep_their_norm_over_widths_under_mup():
    """A spectral norm of the order of sqrt(outputs / inputs) at any width (Yang et al. 2023); plain ones grow."""
    small = norms_of_changes(16, init="mup", mup_base_width=16)
    large = norms_of_changes(64, init="mup", mup_base_width=16)
    plain = norms_of_changes(64)
    for name, norm in small.items():
        assert large[name] == pytest.approx(norm, rel=0.2), name
        assert plain[name] == pytest.approx(2 * norm, rel=0.2), name
