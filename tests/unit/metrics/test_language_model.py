"""Loss, perplexity and bits per byte come from sums that shards can add."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from lightning_nlp.metrics.language_model import LanguageModelMetrics


def filled(batches: list[tuple[float, int, int]]) -> LanguageModelMetrics:
    metric = LanguageModelMetrics()
    for loss_sum, count, size in batches:
        metric.update(torch.tensor(loss_sum), torch.tensor(count), torch.tensor(size))
    return metric


def states(metric: LanguageModelMetrics) -> dict[str, torch.Tensor]:
    return {name: getattr(metric, name) for name in ("loss_sum", "count", "bytes", "text_loss")}


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([], {"loss": 0.0, "perplexity": 1.0}),
        ([(6.0, 3, 0)], {"loss": 2.0, "perplexity": math.exp(2)}),
        ([(6.0, 3, 0), (2.0, 1, 0)], {"loss": 2.0, "perplexity": math.exp(2)}),
        (
            [(8 * math.log(2), 4, 8)],
            {"loss": 2 * math.log(2), "perplexity": 4.0, "bits_per_byte": 1.0, "byte_perplexity": 2.0},
        ),
        ([(1e6, 1, 0)], {"loss": 1e6, "perplexity": math.exp(700)}),  # no overflow
    ],
)
def test_closed_forms(batches, expected):
    assert filled(batches).compute() == pytest.approx(expected)


def test_weighted_by_tokens_not_by_batches():
    assert filled([(10.0, 1, 0), (0.0, 9, 0)]).compute()["loss"] == pytest.approx(1.0)


def test_loss_is_scikit_learns_log_loss_without_padding():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(6, (40,), generator=generator)
    labels[:6] = torch.arange(6)
    labels[10:15] = -100
    metric = LanguageModelMetrics()
    for rows in torch.arange(40).split(7):
        loss = torch.nn.functional.cross_entropy(logits[rows], labels[rows], ignore_index=-100, reduction="sum")
        metric.update(loss, (labels[rows] != -100).sum(), torch.tensor(len(rows)))
    kept = labels != -100
    expected = log_loss(labels[kept].numpy(), logits[kept].softmax(-1).numpy(), labels=np.arange(6))
    values = metric.compute()
    assert values["loss"] == pytest.approx(expected)
    assert values["perplexity"] == pytest.approx(math.exp(expected))
    assert values["bits_per_byte"] == pytest.approx(expected * 35 / math.log(2) / 40)


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_two_shards_make_the_whole(cut):
    batches = [(1.5, 3, 9), (2.25, 2, 11), (0.0, 0, 0), (7.0, 4, 1), (0.1, 1, 5)]
    whole, left, right = filled(batches), filled(batches[:cut]), filled(batches[cut:])
    for name, value in states(whole).items():
        assert torch.equal(value, states(left)[name] + states(right)[name])
    left.merge_state(right)
    assert left.compute() == whole.compute()


def test_states_are_summed_in_double_precision():
    metric = filled([(0.25, 1, 1)] * 4)
    metric.update(torch.tensor(2.0**25), torch.tensor(2**25), torch.tensor(2**25))
    metric.update(torch.tensor(0.25), torch.tensor(1), torch.tensor(1))
    assert {value.dtype for value in states(metric).values()} == {torch.float64}
    assert [float(value) for value in states(metric).values()] == [
        2.0**25 + 1.25,
        2.0**25 + 5,
        2.0**25 + 5,
        2.0**25 + 1.25,
    ]
    assert set(metric._reductions) == {*states(metric), "words"}
    assert all(reduce.__name__ == "dim_zero_sum" for reduce in metric._reductions.values())


def test_reset():
    metric = filled([(6.0, 3, 2)])
    metric.reset()
    assert metric.compute() == {"loss": 0.0, "perplexity": 1.0}


def test_perplexities_of_the_text_leave_out_end_tokens():
    """Definitions of lm-evaluation-harness: exp(loss / words), exp(loss / bytes), loss / ln 2 / bytes."""
    metric = LanguageModelMetrics()
    loss, ends = torch.tensor(24 * math.log(2)), 4 * math.log(2)
    metric.update(loss, torch.tensor(6), torch.tensor(10), words=torch.tensor(4), text_loss=loss.double() - ends)
    values = metric.compute()
    assert values["loss"] == pytest.approx(4 * math.log(2))  # of all labels
    assert [values[name] for name in ("bits_per_byte", "byte_perplexity", "word_perplexity")] == pytest.approx(
        [2, 4, 32]
    )
