"""Every way attention is computed, against the plain mathematics in float64: values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lightning_nlp.backbone import attention
from lightning_nlp.backbone.attention import Scoring, attend, reference
from lightning_nlp.backbone.masks import AttentionMask

LAYOUTS = {
    "no segments": None,
    "one full": [[1, 1, 1, 1, 1, 1, 1], [4, 4, 4, 4, 4, 4, 4]],
    "right padding": [[1, 1, 1, 1, 0, 0, 0], [2, 2, 2, 2, 2, 2, 0]],
    "left padding": [[0, 0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]],
    "documents": [[1, 1, 2, 2, 2, 3, 3], [1, 2, 2, 2, 2, 2, 2]],
    "ragged documents, padding within and after": [[1, 1, 0, 2, 2, 2, 0], [3, 3, 3, 4, 5, 0, 0]],
    "padding within": [[1, 1, 0, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]],
    "an empty row": [[0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 2, 2, 3, 0]],
    "a segment in two pieces": [[1, 2, 1, 2, 1, 2, 1], [1, 1, 0, 1, 2, 2, 1]],
}
HEADS = {"all heads": (4, 4), "grouped": (4, 2), "one key head": (4, 1)}


def tensors(heads: tuple[int, int], queries: int, keys: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, heads[0], queries, 8), (2, heads[1], keys, 8), (2, heads[1], keys, 8)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def with_gradients(function, inputs: list[Tensor], dtype: torch.dtype, real: Tensor, *args) -> list[Tensor]:
    """Output and gradients, counting only rows where ``real [B, T]``."""
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
    output = function(*leaves, *args).where(real[:, None, :, None], 0)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
    (output.double() * weights).sum().backward()
    return [output, *(leaf.grad for leaf in leaves)]


def assert_like_reference(inputs, mask, dtype, real, scale=None):
    inputs = [x.to(dtype).double() for x in inputs]
    expected = with_gradients(reference, inputs, torch.float64, real, mask, 0.0, Scoring(scale=scale))
    found = with_gradients(attend, inputs, dtype, real, mask, 0.0, Scoring(scale=scale))
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 6e-2}[dtype]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours.double(), theirs, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_kernel_computes_attention(layout, causal, heads, dtype):
    segments = None if layout is None else torch.tensor(layout)
    real = torch.ones(2, 7, dtype=torch.bool) if segments is None else segments > 0
    assert_like_reference(tensors(heads, 7, 7), AttentionMask(causal, segments), dtype, real)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize(
    ("new", "keys"),
    [
        (None, None),
        ([[1, 1, 1], [1, 1, 1]], [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]),
        ([[1, 1, 1], [1, 1, 1]], [[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]]),
        ([[1, 2, 2], [3, 3, 0]], [[1, 1, 1, 1, 1, 2, 2], [1, 1, 2, 3, 3, 3, 0]]),
    ],
    ids=["plain", "one segment", "left padding", "documents"],
)
def test_several_new_tokens_after_a_cache(new, keys, heads, dtype):
    new, keys = (None if x is None else torch.tensor(x) for x in (new, keys))
    real = torch.ones(2, 3, dtype=torch.bool) if new is None else new > 0
    assert_like_reference(tensors(heads, 3, 7), AttentionMask(True, new, keys, offset=4), dtype, real)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("keys", [None, [[1, 1, 1, 1, 1]] * 2, [[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]])
def test_one_new_token_after_a_cache(keys, dtype):
    keys = None if keys is None else torch.tensor(keys)
    mask = AttentionMask(False, None if keys is None else keys[:, 4:], keys, offset=4)
    assert_like_reference(tensors((4, 2), 1, 5), mask, dtype, torch.ones(2, 1, dtype=torch.bool))


@pytest.mark.parametrize("limits", [(4, 256), (1024, 0), (0, 0)])
def test_long_rows_in_bfloat16(monkeypatch, limits):
    monkeypatch.setattr(attention, "PRODUCTS_LIMIT", limits[0])
    monkeypatch.setattr(attention, "PIECES_LIMIT", limits[1])
    mask = AttentionMask(True, torch.tensor([[1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 1, 1, 0, 0]]))
    assert_like_reference(tensors((4, 2), 7, 7), mask, torch.bfloat16, mask.query_segments > 0)


def test_cross_attention_sees_its_own_source():
    mask = AttentionMask(False, torch.tensor([[1, 1, 2], [1, 0, 0]]), torch.tensor([[1, 2, 2, 0], [1, 1, 1, 1]]))
    assert_like_reference(tensors((4, 4), 3, 4), mask, torch.float32, mask.query_segments > 0)
    inputs = tensors((4, 4), 3, 4)
    first = attend(*inputs, mask)[0, :, 0]
    torch.testing.assert_close(first, inputs[2][0, :, 0])  # one visible key: its value, whatever the scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", ["one full", "left padding", "documents"])
def test_scale_is_respected(layout, dtype):
    segments = torch.tensor(LAYOUTS[layout])
    assert_like_reference(tensors((4, 2), 7, 7), AttentionMask(True, segments), dtype, segments > 0, 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("causal", "segments", "keys"),
    [
        (False, [[0, 0, 0], [1, 1, 1]], None),  # a padding row, both ways
        (True, [[0, 1, 1], [1, 1, 1]], None),  # causal, left padding
        (True, [[1, 2, 0], [0, 0, 0]], None),  # documents
        (True, [[1, 2, 0], [3, 0, 0]], None),  # more documents than rows
        (False, [[1, 1, 1], [2, 2, 2]], [[2, 2, 0], [2, 2, 2]]),  # a source without the query's segment
    ],
)
def test_queries_that_see_nothing_give_zeros_and_no_gradient(causal, segments, keys, dtype):
    segments = torch.tensor(segments)
    mask = AttentionMask(causal, segments, None if keys is None else torch.tensor(keys))
    blind = ~mask.dense(3, 3, segments.device).any(-1)[:, 0]
    assert blind.any() and not blind.all()
    for function in (attend, reference):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in tensors((4, 2), 3, 3)]
        output = function(*leaves, mask).transpose(1, 2)
        assert (output[blind] == 0).all()
        output[blind].sum().backward()
        assert all((leaf.grad == 0).all() for leaf in leaves)


def test_values_on_paper():
    query = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]]]])
    key = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])
    value = torch.tensor([[[[1.0, 10.0], [2.0, 20.0]]]])
    second = 1 / (1 + math.exp(-math.sqrt(2)))  # sigmoid of the difference of scores, 2 / sqrt(2) - 0
    expected = torch.tensor([[[[1.0, 10.0], [1 + second, 10 + 10 * second]]]])
    torch.testing.assert_close(attend(query, key, value, AttentionMask(True)), expected)


def test_dropout_keeps_the_expectation():
    torch.manual_seed(0)
    query, key = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 4000, 4)
    for dtype in (torch.float32, torch.bfloat16):
        value = torch.ones(1, 1, 4000, 4, dtype=dtype)
        output = attend(query.to(dtype), key.to(dtype), value, AttentionMask(False), dropout=0.25)
        assert output.mean().item() != 1.0
        assert output.mean().item() == pytest.approx(1.0, abs=0.05)


PLAIN = {
    "no segments": (True, True),
    "one full": (True, True),
    "right padding": (True, False),
    "left padding": (False, False),
    "documents": (False, False),
    "ragged documents, padding within and after": (False, False),
    "padding within": (False, False),
    "an empty row": (False, False),
    "a segment in two pieces": (False, False),
}
SPLITS = {"documents", "ragged documents, padding within and after", "an empty row"}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_mask_knows_what_kernels_need(name):
    segments = None if LAYOUTS[name] is None else torch.tensor(LAYOUTS[name])
    assert (AttentionMask(True, segments).plain, AttentionMask(False, segments).plain) == PLAIN[name]
    assert AttentionMask(True, segments).splits == (name in SPLITS)


def test_spans_are_the_documents():
    mask = AttentionMask(True, torch.tensor([[0, 1, 1, 0, 2], [3, 3, 3, 3, 3], [1, 2, 0, 0, 0]]))
    assert mask.spans == [(0, 1, 3), (0, 4, 5), (1, 0, 5), (2, 0, 1), (2, 1, 2)]
    assert sum(stop - start for _, start, stop, _ in mask.runs) == 15


def test_the_mask_tensor_is_made_once():
    mask = AttentionMask(True, torch.tensor([[0, 1, 1]]))
    assert mask.for_kernel(3, 3, torch.device("cpu"))[0] is mask.for_kernel(3, 3, torch.device("cpu"))[0]


@pytest.mark.parametrize(
    ("dtype", "segments", "keys", "kernel"),
    [
        (torch.float32, [[1, 1, 1, 0]], 4, "fused"),
        (torch.float32, [[1, 1, 2, 2]], 4, "per_document"),
        (torch.float32, [[0, 0, 1, 1]], 4, "fused"),
        (torch.bfloat16, [[1, 1, 1, 0]], 4, "products"),
        (torch.bfloat16, [[1, 1, 2, 2]], 4, "products"),
        (torch.bfloat16, [[1] * 100 + [2] * 200], 300, "per_document"),
        (torch.bfloat16, None, 1025, "fused"),
    ],
)
def test_the_kernel_fits_dtype_and_mask(monkeypatch, dtype, segments, keys, kernel):
    called = []
    for name in ("fused", "products", "per_document"):
        monkeypatch.setattr(attention, name, lambda *args, _name=name: (called.append(_name), args[0])[1])
    inputs = [x[:1].to(dtype) for x in tensors((2, 2), keys, keys)]
    attention.attend(*inputs, AttentionMask(True, None if segments is None else torch.tensor(segments)))
    assert called == [kernel]


def test_decoding_in_bfloat16_uses_products_whatever_the_length():
    query, key, _ = (x.bfloat16() for x in tensors((2, 2), 1, 2000))
    assert attention.prefers_products(query, key)
