"""Accuracy, macro-F1 and Matthews correlation agree with scikit-learn; each id counts once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, matthews_corrcoef

from lightning_nlp.metrics.classification import ClassificationMetrics

pytestmark = pytest.mark.filterwarnings("ignore:A single label was found")  # scikit-learn's, on purpose


def oracle(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {
        "accuracy": accuracy_score(labels, predictions),
        "macro_f1": f1_score(labels, predictions, average="macro"),
        "mcc": matthews_corrcoef(labels, predictions),
    }


def data(classes: int, used: int, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    random = np.random.default_rng(seed)
    labels = random.integers(used, size=n)
    predictions = np.where(random.random(n) < 0.6, labels, random.integers(classes, size=n))
    return torch.from_numpy(predictions), torch.from_numpy(labels), [f"row-{number}" for number in range(n)]


def filled(classes: int, predictions: torch.Tensor, labels: torch.Tensor, ids: list[str]) -> ClassificationMetrics:
    metric = ClassificationMetrics(classes)
    for start in range(0, len(ids), 8):
        rows = slice(start, start + 8)
        metric.update(predictions[rows], labels[rows], ids[rows])
    return metric


@pytest.mark.parametrize(
    ("classes", "used", "n"),
    [(2, 2, 50), (3, 3, 200), (7, 7, 500), (5, 3, 60), (9, 2, 12), (2, 1, 20), (2, 2, 1), (20, 20, 30)],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_scikit_learn(classes, used, n, seed):
    predictions, labels, ids = data(classes, used, n, seed)
    metric = filled(classes, predictions, labels, ids)
    assert metric.compute() == pytest.approx(oracle(predictions.numpy(), labels.numpy()), abs=1e-9)
    expected = confusion_matrix(labels.numpy(), predictions.numpy(), labels=np.arange(classes))
    assert np.array_equal(metric.confusion.numpy(), expected)


@pytest.mark.parametrize(
    ("predictions", "labels"),
    [([0, 0, 0], [0, 0, 0]), ([1, 1, 1], [0, 0, 0]), ([0, 1, 0, 1], [1, 0, 1, 0]), ([0, 0, 0, 0], [0, 1, 2, 0])],
)
def test_degenerate_cases_agree_with_scikit_learn(predictions, labels):
    metric = filled(3, torch.tensor(predictions), torch.tensor(labels), [str(row) for row in range(len(labels))])
    assert metric.compute() == pytest.approx(oracle(np.array(predictions), np.array(labels)))


def test_scores_are_argmaxed():
    scores = torch.tensor([[0.1, 0.9], [2.0, -1.0], [-3.0, -2.0]])
    metric = ClassificationMetrics(2)
    metric.update(scores, torch.tensor([1, 0, 0]), ["a", "b", "c"])
    assert metric.confusion.tolist() == [[1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("batches", "counted"),
    [
        ([["a", "a", "b"]], ["a", "b"]),
        ([["a", "b"], ["b", "c"], ["a"]], ["a", "b", "c"]),
        ([["a"], ["a"], ["a"]], ["a"]),
    ],
)
def test_an_id_counts_once(batches, counted):
    metric = ClassificationMetrics(2)
    for ids in batches:
        metric.update(torch.ones(len(ids), dtype=torch.long), torch.ones(len(ids), dtype=torch.long), ids)
    assert float(metric.confusion.sum()) == len(counted)


def test_the_first_of_a_repeated_id_is_the_one_that_counts():
    metric = ClassificationMetrics(2)
    metric.update(torch.tensor([1, 0]), torch.tensor([1, 1]), ["a", "a"])
    metric.update(torch.tensor([0]), torch.tensor([1]), ["a"])
    assert metric.compute()["accuracy"] == 1.0


def test_forward_also_counts_an_id_once():
    metric = ClassificationMetrics(2)
    for ids in (["a", "b"], ["c", "d"], ["a", "c"]):
        metric(torch.tensor([0, 1]), torch.tensor([0, 1]), ids)
    assert float(metric.confusion.sum()) == 4


def test_padding_is_ignored_and_does_not_use_up_its_id():
    metric = ClassificationMetrics(3)
    metric.update(torch.tensor([2, 0, 1]), torch.tensor([-100, 0, -100]), ["a", "b", ""])
    metric.update(torch.tensor([2]), torch.tensor([2]), ["a"])
    assert metric.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 1]]


def test_nothing_but_padding():
    metric = ClassificationMetrics(2)
    metric.update(torch.zeros(2, 2), torch.tensor([-100, -100]), ["a", "b"])
    assert metric.compute() == {"accuracy": 0.0, "macro_f1": 0.0, "mcc": 0.0}


@pytest.mark.parametrize("cut", [0, 1, 40, 99, 100])
def test_two_shards_make_the_whole(cut):
    predictions, labels, ids = data(4, 4, 100, 5)
    whole = filled(4, predictions, labels, ids)
    left = filled(4, predictions[:cut], labels[:cut], ids[:cut])
    right = filled(4, predictions[cut:], labels[cut:], ids[cut:])
    assert torch.equal(left.confusion + right.confusion, whole.confusion)
    assert {name: reduce.__name__ for name, reduce in whole._reductions.items()} == {"confusion": "dim_zero_sum"}
    left.merge_state(right)
    assert left.compute() == whole.compute()


def test_reset_forgets_counts_and_ids():
    metric = ClassificationMetrics(2)
    metric.update(torch.tensor([1]), torch.tensor([1]), ["a"])
    metric.reset()
    assert float(metric.confusion.sum()) == 0
    metric.update(torch.tensor([0]), torch.tensor([1]), ["a"])
    assert metric.confusion.tolist() == [[0, 0], [1, 0]]


def test_ids_must_match_rows():
    with pytest.raises(ValueError, match="zip"):
        ClassificationMetrics(2).update(torch.tensor([0, 1]), torch.tensor([0, 1]), ["a"])
