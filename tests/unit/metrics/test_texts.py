"""Several metrics of texts: names, ids that count once, ranks; exact match, word F1 and variety."""

from __future__ import annotations

import os

import pytest
import torch
import torch.multiprocessing as multiprocessing

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.answers import ExactMatch, TokenF1
from lightning_nlp.metrics.distinct import Distinct
from lightning_nlp.metrics.texts import TextMetrics

ALL = list(registry.METRICS)
PREDICTIONS = ["ein Hund läuft", "zwei", "", "das ist ein Haus", "das ist ein Haus", "nichts zu sehen hier oben"]
REFERENCES = ["ein Hund rennt", "zwei", "drei", "das ist sein Haus", "das war ein Haus", "hier gibt es nichts zu sehen"]
IDS = [f"row-{number}" for number in range(6)]


def scored(metrics, rows):
    metrics.update([PREDICTIONS[r] for r in rows], [REFERENCES[r] for r in rows], [IDS[r] for r in rows])
    return metrics


def test_names_are_those_that_are_computed():
    metrics = scored(TextMetrics(ALL, "de"), range(6))
    names = (
        "bleu",
        "chrf",
        "ter",
        "rouge1",
        "rouge2",
        "rougeL",
        "rougeLsum",
        "exact_match",
        "token_f1",
        "distinct1",
        "distinct2",
    )
    assert metrics.names == tuple(metrics.compute()) == tuple(metrics.signatures()) == names
    assert [name for name, better in metrics.higher_is_better.items() if not better] == ["ter"]


def test_each_id_counts_once_and_padding_never():
    once = scored(TextMetrics(ALL, "de"), range(6)).compute()
    metrics = scored(scored(TextMetrics(ALL, "de"), [0, 1, 2, 2, 1]), [3, 4, 5, 0])
    metrics.update(["padding"], ["padding"], [""])
    assert metrics.compute() == once
    metrics.reset()
    assert metrics.compute() == {}
    assert scored(metrics, range(6)).compute() == once


def test_order_changes_nothing():
    assert (
        scored(TextMetrics(ALL, "de"), range(6)).compute()
        == scored(TextMetrics(ALL, "de"), [5, 3, 1, 0, 2, 4]).compute()
    )


def rank_of(rank, shares, path, results):
    os.environ.update(MASTER_ADDR="127.0.0.1")
    torch.distributed.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=len(shares))
    metrics = TextMetrics(ALL, "de")
    for rows in shares[rank]:
        scored(metrics, rows)
    first = metrics.compute()
    metrics.reset()
    for rows in reversed(shares[rank]):
        scored(metrics, rows)
    results[rank] = (first, metrics.compute())
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("shares", [[[[0, 1], [2]], [[3], [4, 5]]], [[[0, 1, 2, 3, 4, 5]], []]])
def test_two_ranks_give_the_bits_of_one(shares, tmp_path):
    """Also when one of them has no text at all."""
    with multiprocessing.get_context("fork").Manager() as manager:
        results = manager.dict()
        multiprocessing.start_processes(rank_of, (shares, tmp_path / "meet", results), nprocs=2, start_method="fork")
        alone = scored(TextMetrics(ALL, "de"), range(6)).compute()
        assert dict(results) == {0: (alone, alone), 1: (alone, alone)}


def test_options_reach_their_metric():
    metrics = TextMetrics(["chrf", "bleu"], "en", {"chrf": {"word_order": 2}, "bleu": {"tokenize": "intl"}})
    assert "|nw:2|" in metrics.signatures()["chrf"] and "|tok:intl|" in metrics.signatures()["bleu"]


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["blue"], {}, "unknown metric 'blue'; did you mean 'bleu'"),
        (["bleu", "bleu"], {}, "metric 'bleu' is asked for twice"),
        (["bleu"], {"bleu": {"tokenise": "intl"}}, "metric bleu has no option 'tokenise'; did you mean 'tokenize'"),
        (["exact_match"], {"exact_match": {"case": 1}}, r"metric exact_match has no option 'case' \(it has none\)"),
        (["bleu"], {"rouge": {}}, "options of metric 'rouge', which is not asked for"),
    ],
)
def test_mistakes_are_named(names, options, message):
    with pytest.raises(ConfigError, match=message):
        TextMetrics(names, "", options)


def test_exact_match_is_exact():
    metric = ExactMatch()
    metric.update(["eins", "zwei", "drei "], ["eins", "Zwei", "drei"], ["0", "1", "2"])
    metric.update(["fünf"], ["fünf"], ["3"])
    assert metric.compute() == {"exact_match": 0.5}
    with pytest.raises(ValueError, match="1 predictions, 0 references"):
        metric.update(["one"], [], [])


# By hand from the definition in SQuAD's evaluation script, version 1.1
@pytest.mark.parametrize(
    ("language", "prediction", "reference", "expected"),
    [
        ("en", "The Norman Conquest!", "norman conquest", 1.0),
        ("en", "in the 10th century", "10th", 1 / 2),
        ("en", "a cat, a cat", "cat", 2 / 3),
        ("en", "no", "yes", 0.0),
        ("en", "the", "", 1.0),
        ("en", "word", "the", 0.0),
        ("de", "die Große Straße", "große Straße", 4 / 5),
        ("zh", "北京市", "北京", 4 / 5),
        ("", "the cat", "cat", 2 / 3),
    ],
)
def test_token_f1(language, prediction, reference, expected):
    metric = TokenF1(language)
    metric.update([prediction], [reference], ["0"])
    assert metric.compute()["token_f1"] == pytest.approx(expected, abs=1e-12)


def test_distinct_counts_over_the_corpus():
    metric = Distinct()
    metric.update(["I do not know", "I do not care"], ["", ""], ["0", "1"])
    assert metric.compute() == {"distinct1": 5 / 8, "distinct2": 4 / 6}
    metric.update(["", "!"], ["", ""], ["2", "3"])
    assert metric.compute() == {"distinct1": 5 / 8, "distinct2": 4 / 6}
    metric.reset()
    metric.update(["猫猫"], [""], ["0"])
    assert metric.compute() == {"distinct1": 0.5, "distinct2": 1.0}
