"""What a GPU does with the loss, done by a CPU: the same numbers, large chunks, and a host that waits for nothing."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_nlp.backbone import chunked_loss, gpu_loss, loss
from lightning_nlp.backbone.loss import cross_entropy, linear_cross_entropy
from tests.unit.backbone.test_loss import check_bfloat16

LABELS = {
    "all": [1, 4, 0, 6, 2, 3, 5, 1, 0, 2, 6],
    "few": [-100, -100, 3, -100, -100, -100, -100, -100, 5, -100, -100],
    "none": [-100] * 11,
}
EXTRAS = {
    "plain": {},
    "uniform": {"label_smoothing": 0.1},
    "others, z-loss": {"label_smoothing": 0.2, "smoothing": "others", "z_loss": 0.01},
    "no_pad": {"label_smoothing": 0.1, "smoothing": "no_pad", "pad_id": 0},
    "softcap": {"softcap": 2.0, "z_loss": 0.01, "scale": 0.5},
    "weights": {"class_weights": torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0, 3.0, 1.0])},
}
WAITS = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.unique", "aten.is_nonzero")


class NoWaiting(TorchDispatchMode):
    """Refuses what a host could only answer after the device has caught up."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).rsplit(".", 1)[0]
        by_mask = name in ("aten.index", "aten.index_put", "aten.index_put_") and any(
            x is not None and x.dtype == torch.bool for x in args[1]
        )
        if name in WAITS or by_mask:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_a_gpu(monkeypatch):
    for module in (loss, chunked_loss):
        monkeypatch.setattr(module, "runs_ahead", lambda device: True)


def inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in ((11, 5), (7, 5), (7,))]


def measured(labels, chunk_rows, chunked=True, **extras):
    hidden, weight, bias = inputs()
    total, count = linear_cross_entropy(
        hidden, weight, torch.tensor(labels), bias, chunked=chunked, chunk_rows=chunk_rows, **extras
    )
    (total * 3).backward()
    return [total.detach(), count, hidden.grad, weight.grad, bias.grad]


@pytest.mark.parametrize("chunk_rows", [4, 64])
@pytest.mark.parametrize("extras", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_a_gpu_gives_the_numbers_of_a_cpu(labels, extras, chunk_rows, request):
    expected = measured(labels, chunk_rows, **extras)
    request.getfixturevalue("as_a_gpu")
    with NoWaiting():
        found = measured(labels, chunk_rows, **extras)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(found, measured(labels, None, chunked=False, **extras), atol=1e-12, rtol=1e-12)


def test_the_check_for_waiting_can_fail():
    """On a CPU the count is looked at: the same mode refuses that."""
    with pytest.raises(AssertionError, match="waits"), NoWaiting():
        measured(LABELS["all"], 4)


@pytest.mark.parametrize("weights", [None, torch.arange(3.0)])
def test_classification_waits_for_nothing(weights, request):
    logits, labels = torch.randn(4, 3), torch.tensor([2, -100, 0, 1])
    expected = cross_entropy(logits, labels, class_weights=weights)
    request.getfixturevalue("as_a_gpu")
    with NoWaiting():
        found = cross_entropy(logits, labels, class_weights=weights)
    torch.testing.assert_close(found, expected)


def test_rows_are_dropped_on_a_gpu_only_when_asked(as_a_gpu, monkeypatch):
    rows = []
    original = chunked_loss.together
    monkeypatch.setattr(
        chunked_loss, "together", lambda r, logits, *rest: (rows.append(len(logits)), original(r, logits, *rest))[1]
    )
    for asked in (None, False, True):
        measured(LABELS["few"], 64, drop_unlabelled=asked)
    assert rows == [11, 11, 2]


def test_bfloat16_in_few_passes_keeps_the_digits(as_a_gpu):
    check_bfloat16()


def test_without_gradients_none_is_made(as_a_gpu, monkeypatch):
    made = []
    original = gpu_loss.with_gradient
    monkeypatch.setattr(gpu_loss, "with_gradient", lambda *args: (result := original(*args), made.append(result[1]))[0])
    hidden, weight, _ = inputs()
    expected = linear_cross_entropy(hidden, weight, torch.tensor(LABELS["all"]), chunked=False)[0]
    with torch.no_grad():
        found = linear_cross_entropy(hidden, weight, torch.tensor(LABELS["all"]), chunked=True)[0]
    torch.testing.assert_close(found, expected.detach())
    assert made == [None]


def test_logits_are_not_written_over():
    """Compiled by PyTorch 2.11, a function that does so reads labels' scores after it has."""
    logits, ones = torch.randn(3, 7), torch.ones(3, 1)
    before = logits.clone()
    _, slope = gpu_loss.with_gradient(logits, ones.bool(), ones.long(), ones, ones, None, 0.0, 0.0, None, True)
    assert torch.equal(logits, before)
    torch.testing.assert_close(slope.sum(-1), torch.zeros(3))  # softmax less the label's one


SIZES = [
    (torch.bfloat16, 50304, 2_000_000_000_000, 16384),
    (torch.float32, 50304, 2_000_000_000_000, 8192),
    (torch.bfloat16, 128256, 2_000_000_000_000, 4096),
    (torch.bfloat16, 50304, 24 * 2**30, 4096),  # a thirty-second of 24 GB
    (torch.bfloat16, 50_000_000, 24 * 2**30, 512),
]


@pytest.mark.parametrize(("dtype", "vocabulary", "memory", "rows"), SIZES)
def test_rows_held_at_a_time(as_a_gpu, monkeypatch, dtype, vocabulary, memory, rows):
    monkeypatch.setattr(
        chunked_loss, "gpu_bytes", lambda device: min(chunked_loss.GPU_BYTES, memory // chunked_loss.GPU_SHARE)
    )
    assert chunked_loss.rows_at_once(torch.empty(1, 8, dtype=dtype), vocabulary) == rows


def test_a_gpu_chunks_later_than_a_cpu(as_a_gpu, monkeypatch):
    calls = []
    original = chunked_loss.ChunkedLoss.apply
    monkeypatch.setattr(
        chunked_loss.ChunkedLoss, "apply", lambda *args: (calls.append(len(args[0])), original(*args))[1]
    )
    for most in (loss.GPU_CHUNK_ABOVE, 11 * 7 * 4, 11 * 7 * 4 - 1):
        monkeypatch.setattr(loss, "GPU_CHUNK_ABOVE", most)
        hidden, weight, _ = inputs()
        linear_cross_entropy(hidden, weight, torch.tensor(LABELS["all"]))
    assert calls == [11]


def test_compiled_and_uncompiled_agree(as_a_gpu, monkeypatch):
    """The function as a compiler sees it; no kernels are made here."""
    traced = torch.compile(gpu_loss.with_gradient, backend="aot_eager")
    calls = []
    monkeypatch.setattr(gpu_loss, "compiles", lambda device: True)
    monkeypatch.setattr(gpu_loss, "compiled", lambda: lambda *args: (calls.append(1), traced(*args))[1])
    for extras, labels in itertools.product((EXTRAS["plain"], EXTRAS["softcap"]), ("all", "few")):
        found = measured(LABELS[labels], 4, **extras)
        torch.testing.assert_close(found, measured(LABELS[labels], None, chunked=False, **extras))
    assert len(calls) == 4 * 3


def test_where_nothing_can_be_compiled_it_goes_on(as_a_gpu, monkeypatch):
    def broken(*args):
        raise TorchDynamoException("no compiler\nand more")

    monkeypatch.setattr(gpu_loss, "failures", reasons := [])
    monkeypatch.setattr(gpu_loss, "compiles", lambda device: not reasons)
    monkeypatch.setattr(gpu_loss, "compiled", lambda: broken)
    with pytest.warns(UserWarning, match="not compiled, and slower for it: no compiler$") as told:
        found = measured(LABELS["all"], 4)
    assert len(told) == 1
    torch.testing.assert_close(found, measured(LABELS["all"], None, chunked=False))
