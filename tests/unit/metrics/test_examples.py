"""Examples of a report: the worst and some by chance, whatever their order and however many ranks share them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from lightning_nlp.metrics.examples import Examples

SCORES = {f"row-{number}": float(score) for number, score in enumerate(np.random.default_rng(0).normal(size=200))}


def filled(names, number=5):
    examples = Examples(number)
    for name in names:
        examples.offer(name, SCORES[name], lambda name=name: {"text": name.upper()})
    return examples


def ids(chosen):
    return {side: [record["id"] for record in records] for side, records in chosen.items()}


def test_the_worst_come_first_and_records_are_whole():
    worst = filled(SCORES).chosen["worst"]
    expected = sorted(SCORES, key=SCORES.__getitem__, reverse=True)[:5]
    assert worst == [{"id": name, "score": SCORES[name], "text": name.upper()} for name in expected]


@pytest.mark.parametrize("seed", range(4))
def test_order_does_not_matter(seed):
    names = np.random.default_rng(seed).permutation(list(SCORES)).tolist()
    assert filled(names).chosen == filled(SCORES).chosen


def test_chance_looks_at_ids_alone():
    """An id chosen among all is chosen among fewer; about a tenth of the worst half is as good as of the other."""
    chosen = set(ids(filled(SCORES, 20).chosen)["random"])
    half = [name for number, name in enumerate(SCORES) if number % 2]
    assert chosen & set(half) <= set(ids(filled(half, 20).chosen)["random"])
    middle = sorted(SCORES.values())[100]
    assert 3 <= sum(SCORES[name] > middle for name in chosen) <= 17


def test_only_kept_examples_make_records():
    made = []
    examples = Examples(3)
    for name in sorted(SCORES, key=SCORES.__getitem__, reverse=True):
        examples.offer(name, SCORES[name], lambda name=name: made.append(name) or {})
    assert len(made) < 40


def test_what_is_not_finite_is_worst_and_too_few_labels_are_last():
    examples = Examples(4)
    for name, score, enough in (
        ("nan", math.nan, True),
        ("short", 99.0, False),
        ("high", 3.0, True),
        ("low", 1.0, True),
        ("lowest", 0.5, True),
    ):
        examples.offer(name, score, dict, enough)
    examples.offer("high", 3.0, dict)
    assert ids(examples.chosen)["worst"] == ["nan", "high", "low", "lowest"]
    assert examples.chosen["worst"][0]["score"] is None
    examples = Examples(4)
    examples.offer("short", 99.0, dict, False)
    examples.offer("low", 1.0, dict)
    assert ids(examples.chosen)["worst"] == ["low", "short"]


def test_a_record_in_both_lists_is_one():
    examples = Examples(300)
    examples.offer("a", 1.0, lambda: {"text": "one"})
    examples.amend("a", prediction="eins")
    examples.amend("b", prediction="zwei")
    (worst,), (random,) = examples.chosen.values()
    assert worst is random and worst == {"id": "a", "score": 1.0, "text": "one", "prediction": "eins"}
    assert Examples(0).chosen == {"worst": [], "random": []}


def rank_of(rank, shares, path, results):
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=len(shares))
    examples = filled(shares[rank])
    examples.gather("cpu")
    results[rank] = examples.chosen
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("cut", [100, 200])
def test_two_ranks_choose_as_one(cut, tmp_path):
    shares = list(SCORES)[:cut], list(SCORES)[cut:]
    with multiprocessing.get_context("fork").Manager() as manager:
        results = manager.dict()
        multiprocessing.start_processes(rank_of, (shares, tmp_path / "meet", results), nprocs=2, start_method="fork")
        assert dict(results) == dict.fromkeys((0, 1), filled(SCORES).chosen)
