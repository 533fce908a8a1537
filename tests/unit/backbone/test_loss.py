"""Losses as (sum, count): the chunked form equals the plain one, in value, gradient and what it skips."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nlp.backbone import loss
from lightning_nlp.backbone.loss import ChunkedLoss, cross_entropy, linear_cross_entropy

LABELS = {
    "all": [1, 4, 0, 6, 2, 3, 5, 1, 0, 2, 6],
    "a few left out": [1, -100, 0, 6, 2, 3, 5, 1, -100, 2, 6],
    "most left out": [-100, -100, 3, -100, -100, -100, -100, -100, 5, -100, -100],
    "none": [-100] * 11,
}


def inputs(dtype: torch.dtype = torch.float64, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(11, 5), (7, 5), (7,)][: 3 if bias else 2]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for shape in shapes]
    return made[0], made[1], made[2] if bias else None


@pytest.mark.parametrize("chunk_rows", [1, 4, 256])
@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_both_forms_are_cross_entropy(labels, bias, chunked, chunk_rows):
    labels = torch.tensor(labels)
    ours, theirs = inputs(bias=bias), inputs(bias=bias)
    total, count = linear_cross_entropy(ours[0], ours[1], labels, ours[2], chunk_rows=chunk_rows, chunked=chunked)
    expected = -F.linear(*theirs).log_softmax(-1)[labels >= 0, labels[labels >= 0]].sum()
    torch.testing.assert_close(total, expected)
    assert count.item() == (labels >= 0).sum()
    (3 * total).backward()
    (3 * expected).backward()
    for our, their in zip(ours, theirs, strict=True):
        assert (our is None) == (their is None)
        if our is not None:
            torch.testing.assert_close(our.grad, their.grad)


def test_gradients_are_handed_out_once():
    hidden, weight, bias = inputs()
    total, _ = linear_cross_entropy(hidden, weight, torch.tensor(LABELS["all"]), bias, chunked=True)
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        total.backward()


def test_only_what_needs_a_gradient_gets_one():
    hidden, weight, bias = inputs()
    labels = torch.tensor(LABELS["all"])
    linear_cross_entropy(hidden.detach(), weight, labels, bias.detach(), chunked=True)[0].backward()
    assert hidden.grad is None and bias.grad is None
    assert weight.grad is not None


@pytest.mark.parametrize("chunked", [True, False])
def test_a_weight_used_twice_gets_both_gradients(chunked):
    _, weight, _ = inputs()
    tokens, labels = torch.tensor([0, 3, 3, 6]), torch.tensor([3, 3, 6, 0])
    total, _ = linear_cross_entropy(F.embedding(tokens, weight), weight, labels, chunked=chunked, chunk_rows=3)
    total.backward()
    found = weight.grad.clone()
    weight.grad = None
    F.cross_entropy(weight[tokens] @ weight.T, labels, reduction="sum").backward()
    torch.testing.assert_close(found, weight.grad)


def check_bfloat16(**how):
    """A loss of bfloat16 tensors, in chunks, beside that of the same numbers in float64."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(600, 32, generator=generator).bfloat16().requires_grad_()
    weight = (torch.randn(2000, 32, generator=generator) * 0.1).bfloat16().requires_grad_()
    labels = torch.randint(0, 2000, (600,), generator=generator)
    exact = [x.detach().double().requires_grad_() for x in (hidden, weight)]
    total, count = linear_cross_entropy(hidden, weight, labels, chunked=True, **how)
    expected, _ = linear_cross_entropy(*exact, labels, chunked=False)
    assert total.dtype == count.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=1e-4)
    total.backward()
    expected.backward()
    for our, their in zip((hidden, weight), exact, strict=True):
        assert our.grad.dtype == torch.bfloat16
        assert (our.grad.double() - their.grad).norm() < 0.004 * their.grad.norm()


def test_bfloat16_keeps_the_digits_of_the_sum():
    check_bfloat16(chunk_rows=4)


@pytest.mark.parametrize("chunked", [True, False])
def test_autocast_with_float32_weights(chunked):
    hidden, weight, bias = inputs(torch.float32)
    labels = torch.tensor(LABELS["a few left out"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = linear_cross_entropy(hidden.bfloat16(), weight, labels, bias, chunked=chunked)
    total.backward()
    expected, _ = linear_cross_entropy(hidden, weight, labels, bias, chunked=False)
    assert total.dtype == torch.float32
    assert total.item() == pytest.approx(expected.item(), rel=1e-2)
    assert weight.grad.dtype == torch.float32


def test_without_gradients_nothing_is_kept(monkeypatch):
    needed = []
    original = ChunkedLoss.forward

    def spy(ctx, *args):
        needed.append(any(ctx.needs_input_grad))
        return original(ctx, *args)

    monkeypatch.setattr(ChunkedLoss, "forward", spy)
    hidden, weight, bias = inputs()
    labels = torch.tensor(LABELS["all"])
    with torch.no_grad():
        total, _ = linear_cross_entropy(hidden, weight, labels, bias, chunked=True)
    trained, _ = linear_cross_entropy(hidden, weight, labels, bias, chunked=True)
    assert needed == [False, True]
    assert not total.requires_grad
    torch.testing.assert_close(total, trained.detach())


def test_size_decides_the_form(monkeypatch):
    calls = []
    original = ChunkedLoss.apply
    monkeypatch.setattr(ChunkedLoss, "apply", lambda *args: (calls.append(len(args[0])), original(*args))[1])
    hidden, weight, _ = inputs()
    labels = torch.tensor(LABELS["all"])
    linear_cross_entropy(hidden, weight, labels)
    assert calls == []
    monkeypatch.setattr(loss, "CHUNK_ABOVE", 11 * 7 * 4 - 1)
    linear_cross_entropy(hidden, weight, labels)
    assert calls == [11]


def test_rows_without_a_label_are_dropped_when_they_are_many():
    hidden, weight, _ = inputs()
    sizes = []
    original = ChunkedLoss.apply
    labels = {name: torch.tensor(values) for name, values in LABELS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChunkedLoss, "apply", lambda *args: (sizes.append(len(args[0])), original(*args))[1])
        for values in labels.values():
            linear_cross_entropy(hidden, weight, values, chunked=True)
    assert sizes == [11, 11, 2, 0]


def test_classification_loss_counts_labels():
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0]], requires_grad=True)
    total, count = cross_entropy(logits, torch.tensor([0, 1, -100]))
    assert total.item() == pytest.approx(0.693147 + 2.126928, abs=1e-5)
    assert count.item() == 2 and count.dtype == torch.float32
    total.backward()
    assert (logits.grad[2] == 0).all()


def test_classification_loss_of_nothing_is_zero():
    total, count = cross_entropy(torch.randn(2, 3), torch.tensor([-100, -100]))
    assert (total.item(), count.item()) == (0.0, 0.0)
