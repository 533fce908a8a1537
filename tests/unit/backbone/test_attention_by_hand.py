"""Every attention kernel against softmax and its gradient written out by hand, sharing no code with the package."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_nlp.backbone.attention import PLAIN, attend, fused, per_document, products, reference
from lightning_nlp.backbone.masks import AttentionMask

CASES = {  # causal, segments of queries, segments of keys, offset
    "causal": (True, [[1] * 6] * 2, None, 0),
    "both ways": (False, [[1] * 6] * 2, None, 0),
    "right padding": (True, [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]], None, 0),
    "right padding, both ways": (False, [[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0]], None, 0),
    "left padding": (True, [[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]], None, 0),
    "ragged documents": (True, [[1, 2, 2, 2, 3, 3], [1, 1, 1, 1, 2, 0]], None, 0),
    "ragged documents, both ways": (False, [[1, 2, 2, 2, 3, 3], [0, 4, 4, 5, 0, 0]], None, 0),
    "an empty row": (True, [[0] * 6, [1, 1, 2, 2, 2, 0]], None, 0),
    "three tokens after a cache": (True, [[1, 1, 1]] * 2, [[1] * 6] * 2, 3),
    "three tokens after a padded cache": (True, [[1, 1, 0], [2, 2, 2]], [[0, 0, 1, 1, 1, 0], [1, 1, 2, 2, 2, 2]], 3),
    "a padded source": (False, [[1, 1, 0], [1, 1, 1]], [[1, 1, 0, 0], [0, 1, 1, 1]], 0),
    "no source to see": (False, [[1, 2], [1, 1]], [[1, 1, 0], [0, 0, 0]], 0),
}
HEADS = [(4, 4), (4, 2), (4, 1)]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 6e-2}


def sees(case: tuple, row: int, query: int, key: int) -> bool:
    causal, queries, keys, offset = case
    keys = queries if keys is None else keys
    return queries[row][query] == keys[row][key] != 0 and not (causal and key > query + offset)


def on_paper(case: tuple, query: Tensor, key: Tensor, value: Tensor, grad: Tensor) -> list[Tensor]:
    """Output and gradients of query, key and value for the output's gradient ``grad``, one query at a time."""
    output, *grads = (torch.zeros_like(x) for x in (query, query, key, value))
    heads, group, scale = query.shape[1], query.shape[1] // key.shape[1], query.shape[3] ** -0.5
    for row in range(len(query)):
        for head in range(heads):
            for t in range(query.shape[2]):
                seen = [s for s in range(key.shape[2]) if sees(case, row, t, s)]
                if not seen:
                    continue
                at = (row, head // group, seen)
                scores = (key[at] * query[row, head, t]).sum(-1) * scale
                weights = (scores - scores.max()).exp()
                weights = weights / weights.sum()
                output[row, head, t] = (weights[:, None] * value[at]).sum(0)
                by_weight = (value[at] * grad[row, head, t]).sum(-1)
                by_score = weights * (by_weight - (weights * by_weight).sum()) * scale
                grads[0][row, head, t] = (by_score[:, None] * key[at]).sum(0)
                grads[1][at] += by_score[:, None] * query[row, head, t]
                grads[2][at] += weights[:, None] * grad[row, head, t]
    return [output, *grads]


def masked(kernel):
    """``kernel`` with a mask tensor, as :func:`attend` calls it when nothing simpler will do."""

    def call(query, key, value, mask):
        visible, empty = mask.for_kernel(query.shape[2], key.shape[2], query.device)
        output = kernel(query, key, value, visible, False, 0.0, PLAIN)
        return output if empty is None else output.masked_fill(empty, 0.0)

    return call


def plain(kernel):
    return lambda query, key, value, mask: kernel(query, key, value, None, mask.causal, 0.0, PLAIN)


KERNELS = {
    "attend": (attend, lambda mask: True),
    "reference": (reference, lambda mask: True),
    "fused with mask": (masked(fused), lambda mask: True),
    "products with mask": (masked(products), lambda mask: True),
    "fused": (plain(fused), lambda mask: mask.plain),
    "products": (plain(products), lambda mask: mask.plain),
    "per document": (lambda *inputs: per_document(*inputs, 0.0, PLAIN), lambda mask: mask.splits),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("heads", HEADS, ids=str)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_and_gradients(case, heads, dtype):
    causal, queries, keys, offset = case
    segments = torch.tensor(queries)
    mask = AttentionMask(causal, segments, None if keys is None else torch.tensor(keys), offset)
    lengths = len(queries[0]), len((keys or queries)[0])
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads[0], lengths[0], 8), *[(2, heads[1], lengths[1], 8)] * 2, (2, heads[0], lengths[0], 8)]
    inputs = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    real = (segments > 0)[:, None, :, None]  # what padding gives is of no consequence where a kernel ignores it
    grad = inputs.pop() * real
    expected = on_paper(case, *(x.double() for x in (*inputs, grad)))
    applied = []
    for name, (kernel, applies) in KERNELS.items():
        if not applies(mask):
            continue
        applied.append(name)
        leaves = [x.clone().requires_grad_() for x in inputs]
        output = kernel(*leaves, mask)
        output.backward(grad)
        assert output.dtype == dtype
        assert torch.isfinite(output).all(), name
        for found, wanted in zip((output * real, *(leaf.grad for leaf in leaves)), expected, strict=True):
            limit = TOLERANCE[dtype]
            torch.testing.assert_close(
                found.double(), wanted, atol=limit, rtol=limit, msg=lambda m, n=name: f"{n}: {m}"
            )
        if not mask.plain:
            assert (output * ~real == 0).all(), name
    assert len(applied) >= 4


def test_every_kernel_is_reached_by_some_case():
    masks = [
        AttentionMask(c, torch.tensor(q), None if k is None else torch.tensor(k), o) for c, q, k, o in CASES.values()
    ]
    assert all(any(applies(mask) for mask in masks) for _, applies in KERNELS.values())
    assert any(not mask.plain and not mask.splits for mask in masks)
