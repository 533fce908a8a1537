"""Lion against the published program, in float64."""

from __future__ import annotations

import pytest
import torch

from lightning_nlp.optim.lion import Lion


def published(weight, gradients, lr, betas, decay):
    """Chen et al. 2023, program 1: interpolate, take the sign, decay, move; then the momentum."""
    momentum = torch.zeros_like(weight)
    for gradient in gradients:
        update = torch.sign(gradient * (1 - betas[0]) + momentum * betas[0])
        momentum = gradient * (1 - betas[1]) + momentum * betas[1]
        weight = weight - lr * (update + weight * decay)
    return weight


@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.0, 0.5), (0.95, 0.95)])
def test_equals_the_published_program(betas, decay):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    gradients = torch.randn(6, 5, 3, dtype=torch.float64, generator=generator)
    weight = torch.nn.Parameter(start.clone())
    optimizer = Lion([weight], lr=0.01, betas=betas, weight_decay=decay)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(weight.detach(), published(start, gradients, 0.01, betas, decay), rtol=1e-12, atol=1e-14)


def test_every_weight_moves_by_the_learning_rate_and_those_without_gradient_stay():
    moved, still = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.ones(4))
    moved.grad = torch.tensor([1e-20, -3.0, 7.0, 0.0])
    Lion([moved, still], lr=0.5, weight_decay=0.1).step()
    assert moved.tolist() == [-0.5, 0.5, -0.5, 0.0]
    assert still.tolist() == [1.0] * 4


def test_half_of_adamws_state():
    weight = torch.nn.Parameter(torch.ones(8, 8))
    weight.grad = torch.ones(8, 8)
    optimizer = Lion([weight])
    optimizer.step()
    assert sum(value.numel() for value in optimizer.state[weight].values()) == weight.numel()
