"""Adafactor against the published algorithm in float64 and against the one of transformers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_nlp.optim.adafactor import Adafactor


def rms(x):
    return float((x**2).mean() ** 0.5)


def published(weight, gradients, lr, scale_parameter, decay):
    """Shazeer & Stern 2018, algorithms 4 (matrices) and 5 (vectors); sums of rows and columns as the paper has them."""
    weight = weight.clone()
    rows = columns = vector = 0.0
    for step, gradient in enumerate(gradients, start=1):
        second = 1 - step**-0.8
        size = lr * (max(1e-3, rms(weight)) if scale_parameter else 1.0)
        squares = gradient**2 + 1e-30
        if weight.ndim == 2:
            rows = second * rows + (1 - second) * squares.sum(1)
            columns = second * columns + (1 - second) * squares.sum(0)
            moments = torch.outer(rows, columns) / rows.sum()
        else:
            moments = vector = second * vector + (1 - second) * squares
        update = gradient / moments.sqrt()
        weight = weight * (1 - lr * decay) - size * update / max(1.0, rms(update) / 1.0)
    return weight


def steps(optimizer, weight, gradients):
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


def case(shape, scale=1.0, count=5):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(shape, dtype=torch.float64, generator=generator)
    return start, scale * torch.randn(count, *shape, dtype=torch.float64, generator=generator).exp()


@pytest.mark.parametrize("scale_parameter", [True, False])
@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (1, 5), (6,)])
@pytest.mark.parametrize("scale", [1.0, 1e-9])
def test_equals_the_published_algorithm_however_small_gradients_are(shape, scale, scale_parameter):
    start, gradients = case(shape, scale)
    weight = torch.nn.Parameter(start.clone())
    optimizer = Adafactor([weight], lr=0.02, scale_parameter=scale_parameter, weight_decay=0.1)
    expected = published(start, gradients, 0.02, scale_parameter, 0.1)
    torch.testing.assert_close(steps(optimizer, weight, gradients), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("scale_parameter", [True, False])
@pytest.mark.parametrize("shape", [(4, 7), (6,), (2, 3, 4)])
def test_equals_transformers(shape, scale_parameter, momentum):
    optimization = pytest.importorskip("transformers.optimization")
    start, gradients = case(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"scale_parameter": scale_parameter, "relative_step": False, "beta1": momentum or None}
    peer = optimization.Adafactor([theirs], lr=0.02, **settings)
    mine = Adafactor([ours], lr=0.02, scale_parameter=scale_parameter, momentum=momentum)
    torch.testing.assert_close(steps(mine, ours, gradients), steps(peer, theirs, gradients), rtol=1e-10, atol=1e-12)


def test_the_relative_step_is_the_inverse_root_schedule():
    """Their ``relative_step`` with ``warmup_init``, min(1e-6 t, t^-0.5), is inverse_sqrt with lr .01 and 10,000 steps."""
    from lightning_nlp.optim.schedules import ScheduleConfig, factor

    config = ScheduleConfig("inverse_sqrt", warmup=10_000, final=0.0)
    for step in (0, 1, 99, 9_999, 10_000, 250_000):
        assert 0.01 * factor(config, step, 1) == pytest.approx(min(1e-6 * (step + 1), (step + 1) ** -0.5))


def test_state_is_a_row_and_a_column():
    weight = torch.nn.Parameter(torch.ones(30, 50, dtype=torch.bfloat16))
    weight.grad = torch.ones_like(weight)
    optimizer = Adafactor([weight])
    optimizer.step()
    assert {name: tuple(value.shape) for name, value in optimizer.state[weight].items()} == {
        "step": (),
        "row": (30,),
        "column": (50,),
    }
    assert optimizer.state[weight]["row"].dtype == torch.float32  # moments of narrow weights stay wide
    assert weight.dtype == torch.bfloat16


def test_weights_that_start_at_zero_leave_it():
    weight = torch.nn.Parameter(torch.zeros(3, 3))
    weight.grad = torch.ones(3, 3)
    Adafactor([weight], lr=0.1).step()
    torch.testing.assert_close(weight.detach(), torch.full((3, 3), -0.1 * 1e-3))


def test_loaded_moments_stay_wide():
    """PyTorch casts state to the parameter's type: rows of a bfloat16 matrix would lose their digits on a resume."""
    weight = nn.Parameter(torch.randn(4, 3).bfloat16())
    optimizer = Adafactor([weight], momentum=0.9)
    for _ in range(2):
        weight.grad = torch.randn(4, 3).bfloat16()
        optimizer.step()
    other = Adafactor([weight], momentum=0.9)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    torch.testing.assert_close(other.state[weight], optimizer.state[weight], rtol=0, atol=0)
    assert other.state[weight]["row"].dtype == torch.float32
    other.step()
