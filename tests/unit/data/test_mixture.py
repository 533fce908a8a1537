"""Mixtures: rates against published numbers, shares met exactly, draws that restore and do not depend on ranks."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from corpora import APART, ListSource, documents, prepare
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nlp.data.order.blocks import BlockOrder
from lightning_nlp.data.order.documents import SourceDocuments
from lightning_nlp.data.order.joined import JoinedSource
from lightning_nlp.data.order.lanes import PackedLane
from lightning_nlp.data.order.mixed import HomogeneousLane, MixedDocuments
from lightning_nlp.data.order.mixture import (
    MixtureConfig,
    MixtureSource,
    Rates,
    WeightChange,
    batch_source,
    proportional,
)
from lightning_nlp.errors import ConfigError, DataError


def config(names="abc", **settings):
    return MixtureConfig(sources={name: MixtureSource(path=name) for name in names}, **settings)


@pytest.mark.parametrize(
    ("rows", "temperature", "cap", "rate"),
    [  # seqio's utils_test: rate_num_examples
        (3, 1.0, None, 3.0),
        (81, 2.0, None, 9.0),
        (100, 0.5, 50.5, 2550.25),
        (10, 0.7, None, 26.8270),
    ],
)
def test_rates_of_seqio(rows, temperature, cap, rate):
    assert proportional(rows, temperature, cap) == pytest.approx(rate, abs=5e-5)


@pytest.mark.parametrize(
    ("step", "shares"),
    [  # jiant's test_task_sampler: weights 1, 1 - t / 1000, exp(t / 1000)
        (500, (0.31759, 0.15879, 0.52362)),
        (0, (1 / 3, 1 / 3, 1 / 3)),
        (1000, (1 / (1 + math.e), 0.0, math.e / (1 + math.e))),
        (5000, (1 / (1 + math.e), 0.0, math.e / (1 + math.e))),  # where the change ends, it stays
    ],
)
def test_scheduled_rates_of_jiant(step, shares):
    changes = {"b": WeightChange(0.0, 1000), "c": WeightChange(math.e, 1000, "exponential")}
    rates = Rates(config(rates="weights", weights={"a": 1, "b": 1, "c": 1}, schedule=changes), {})
    assert rates(step) == pytest.approx(shares, abs=5e-6)


@pytest.mark.parametrize(
    ("weights", "groups", "flat"),
    [  # seqio's dataset_providers_test: nested mixtures, and one with a source given twice
        ({"inner": 1, "c": 1}, {"inner": {"a": 1, "b": 1}}, {"a": 0.5, "b": 0.5, "c": 1.0}),
        ({"inner": 1, "a": 1, "c": 1}, {"inner": {"a": 1, "b": 1}}, {"a": 1.5, "b": 0.5, "c": 1.0}),
        ({"outer": 4}, {"outer": {"inner": 1, "c": 3}, "inner": {"a": 3, "b": 1}}, {"a": 0.75, "b": 0.25, "c": 3.0}),
    ],
)
def test_nested_weights_of_seqio(weights, groups, flat):
    made = config(rates="weights", weights=weights, groups=groups)
    assert made.flat(weights) == pytest.approx(flat)


def test_sizes_give_proportional_rates():
    sizes = {"a": 100, "b": 300, "c": 600}
    assert Rates(config(), sizes)(7).tolist() == pytest.approx([0.1, 0.3, 0.6])
    assert Rates(config(cap=300), sizes)(0).tolist() == pytest.approx([1 / 7, 3 / 7, 3 / 7])
    assert Rates(config(rates="equal"), sizes)(0).tolist() == pytest.approx([1 / 3] * 3)
    with pytest.raises(ConfigError, match="source 'b' is a stream: give its size"):
        Rates(config(), {**sizes, "b": None})


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"rates": "weights"}, "go together"),
        ({"weights": {"a": 1}}, "go together"),
        ({"rates": "weights", "weights": {"aa": 1}}, "no source or group 'aa'.*'a'"),
        ({"rates": "weights", "weights": {"a": -1}}, "must not be negative"),
        ({"rates": "weights", "weights": {"a": 0}}, "are all 0"),
        ({"rates": "weights", "weights": {"g": 1}, "groups": {"g": {"g": 1}}}, "'g' is inside itself"),
        ({"rates": "weights", "weights": {"g": 1}, "groups": {"g": {"x": 1}}}, "groups.g: there is no 'x'"),
        ({"rates": "weights", "weights": {"a": 1}, "groups": {"a": {"b": 1}}}, "'a' is a source and a group"),
        ({"rates": "weights", "weights": {"a": 1}, "schedule": {"b": WeightChange(1, 2)}}, "'b' has no weight"),
        ({"temperature": 0}, "must be positive"),
        ({"batches": "homogeneous", "unit": "tokens"}, "homogeneous shares out batches"),
        ({"batches": "homogeneous", "exhaustion": "drop"}, "homogeneous shares out batches"),
    ],
    ids=str,
)
def test_impossible_mixtures(settings, text):
    with pytest.raises(ConfigError, match=text):
        config(**settings)


def test_a_weight_that_ends_at_nothing_cannot_be_exponential():
    with pytest.raises(ConfigError, match="exponential ones positive"):
        WeightChange(0.0, 10, "exponential")


# Draws --------------------------------------------------------------------------------------------------------

SIZES = {"a": [5] * 40, "b": [20] * 25, "c": [3] * 60}
FIRST = {"a": 0, "b": 1000, "c": 2000}
"""Documents of a source are numbered from here, so that a token says where it is from."""


def rows_of(name):
    return [
        {"id": f"{name}{place}", "number": FIRST[name] + place, "pairs": pairs}
        for place, pairs in enumerate(SIZES[name])
    ]


def mixed(shares, *, lane=0, lanes=2, seed=4, how=prepare, **settings):
    parts = {}
    for name in SIZES:
        order = BlockOrder(ListSource(rows_of(name)), seed=seed, shuffle=True, block_rows=8, lanes=lanes)
        parts[name] = SourceDocuments(order, lane, lanes, how)
    return MixedDocuments(parts, lambda step: np.array(shares), seed=seed, lane=lane, **settings)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(0, 9)] * 3).filter(any), st.integers(1, 120))
def test_shares_of_documents_are_met_up_to_one(weights, draws):
    shares = np.array(weights) / sum(weights)
    stream = mixed(shares)
    drawn = Counter(stream.next().id[0] for _ in range(draws))
    for name, rate in zip(SIZES, shares, strict=True):
        assert abs(drawn[name] - rate * draws) < 2
        assert rate > 0 or not drawn[name]


def test_shares_of_tokens_are_met_up_to_a_document():
    stream = mixed([0.5, 0.25, 0.25], unit="tokens")
    tokens = Counter()
    for _ in range(400):
        example = stream.next()
        tokens[example.id[0]] += len(example.tokens)
    total = sum(tokens.values())
    assert [abs(tokens[name] - rate * total) <= 40 for name, rate in zip(SIZES, [0.5, 0.25, 0.25], strict=True)] == [
        True
    ] * 3


def test_lanes_begin_at_different_phases():
    firsts = {mixed([1 / 3] * 3, lane=lane, lanes=4).next().id[0] for lane in range(4)}
    assert len(firsts) > 1


def test_a_source_used_up_is_left_out():
    stream = mixed([0.6, 0.2, 0.2], lanes=1, exhaustion="drop")
    drawn = [stream.next().id for _ in range(sum(map(len, SIZES.values())))]
    assert len(set(drawn)) == len(drawn)  # every document once, none twice
    with pytest.raises(DataError, match="the mixture was read once in full"):
        stream.next()
    twice = mixed([0.6, 0.2, 0.2], lanes=1, exhaustion="drop", passes=2)
    assert set(Counter(twice.next().id for _ in range(250)).values()) == {2}


def test_a_source_used_up_can_be_an_error():
    stream = mixed([0.5, 0.25, 0.25], lanes=1, exhaustion="error")
    with pytest.raises(DataError, match="source 'a' was read once"):
        for _ in range(125):
            stream.next()
    assert stream.parts[0].counts.documents == 40


@pytest.mark.parametrize("unit", ["documents", "tokens"])
@pytest.mark.parametrize("exhaustion", ["repeat", "drop"])
@pytest.mark.parametrize("rows", [0, 1, 7, 30])
def test_mixtures_restore_exactly(unit, exhaustion, rows):
    def lane():
        return PackedLane(mixed([0.5, 0.3, 0.2], unit=unit, exhaustion=exhaustion, passes=20), 16)

    first = lane()
    for step in range(rows):
        first.at(step)
        first.next()
    state = first.state()
    expected = [(row.ids, row.tokens.tolist()) for row in (first.next() for _ in range(40))]
    again = lane()
    again.restore(state)
    assert [(row.ids, row.tokens.tolist()) for row in (again.next() for _ in range(40))] == expected
    assert again.state() == first.state()


def test_documents_of_a_mixture_stay_whole():
    """Packed across sources: every document's tokens follow each other, and labels never leave it."""
    lane = PackedLane(mixed([0.4, 0.3, 0.3]), 16)
    tokens = [int(token) for _ in range(100) for token in lane.next().tokens]
    where = [divmod(token, APART) for token in tokens]
    for (document, place), (after, next_place) in pairwise(where):
        assert (after == document and next_place == place + 1) or next_place == 0


def test_the_rates_of_the_step_are_used():
    order = {name: BlockOrder(ListSource(rows_of(name)), seed=1, shuffle=True, block_rows=8, lanes=1) for name in SIZES}
    parts = {name: SourceDocuments(order[name], 0, 1, prepare) for name in SIZES}
    stream = MixedDocuments(parts, lambda step: np.eye(3)[min(step, 2)], seed=1, lane=0)
    for step, name in enumerate("abc"):
        stream.at(step)
        assert {stream.next().id[0] for _ in range(5)} == {name}


# Homogeneous batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.7, 0.2, 0.1), (0.25, 0.25, 0.25, 0.25), (0.0, 1.0)])
def test_batches_hold_their_share_in_any_run_of_steps(shares):
    choose = batch_source(lambda step: np.array(shares), 9)
    chosen = np.array([choose(step) for step in range(2000)])
    for start in (0, 17, 1203):
        for count in (10, 100, 700):
            drawn = np.bincount(chosen[start : start + count], minlength=len(shares))
            assert np.abs(drawn - np.array(shares) * count).max() < 4


def homogeneous(lane, lanes=2, seed=4):
    own = {}
    for number, name in enumerate(SIZES):
        order = BlockOrder(ListSource(rows_of(name)), seed=seed + number, shuffle=True, block_rows=8, lanes=lanes)
        own[name] = PackedLane(SourceDocuments(order, lane, lanes, prepare), 16)
    return HomogeneousLane(own, batch_source(lambda step: np.array([0.5, 0.3, 0.2]), seed))


def test_a_homogeneous_step_is_of_one_source_in_all_lanes():
    lanes = [homogeneous(lane) for lane in range(2)]
    for step in range(60):
        sources = set()
        for lane in lanes:
            lane.at(step)
            sources |= {name[0] for name in lane.next().ids}
        assert len(sources) == 1


def test_homogeneous_lanes_restore_exactly():
    def run(lane, steps):
        found = []
        for step in steps:
            lane.at(step)
            found.append(lane.next().ids)
        return found

    first = homogeneous(1)
    run(first, range(23))
    state = first.state()
    again = homogeneous(1)
    again.restore(state)
    assert run(again, range(23, 80)) == run(first, range(23, 80))
    assert again.state() == first.state()
    assert state["seen"]["documents"] == sum(part["seen"]["documents"] for part in state["sources"].values())


# Sources ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_joined_sources_read_and_scan_alike(stream):
    parts = {
        name: ListSource(documents([1] * size), stream=stream and name == "b") for name, size in [("a", 3), ("b", 4)]
    }
    joined = JoinedSource("train", parts)
    everything = list(joined.scan(0))
    assert [row["id"] for row in everything] == ["d0", "d1", "d2", "d0", "d1", "d2", "d3"]
    for start in range(8):
        assert list(joined.scan(start)) == everything[start:]
    assert joined.num_rows == (None if stream else 7)
    if not stream:
        assert joined.read(np.array([6, 0, 3, 2])) == [everything[place] for place in (6, 0, 3, 2)]


def test_a_source_is_used_up_by_documents_that_give_nothing():
    """The last documents of `a` are useless: what follows is none of its second pass."""
    parts = {}
    for name, lengths in {"a": [5, 5, 0, 0, 0], "b": [3] * 30}.items():
        order = BlockOrder(ListSource(documents(lengths)), seed=0, shuffle=False, block_rows=8, lanes=1)
        parts[name] = SourceDocuments(order, 0, 1, prepare)
    stream = MixedDocuments(parts, lambda step: np.array([0.5, 0.5]), seed=0, lane=0, exhaustion="drop")
    drawn = Counter(len(stream.next().tokens) for _ in range(32))
    assert drawn == {5: 2, 3: 30}
    assert stream.parts[0].counts.dropped == 3


def test_a_mixture_may_be_moved_and_a_changed_one_is_noticed():
    there = MixtureConfig({"a": MixtureSource("there/a", columns={"text": "body"}), "b": MixtureSource("there/b")})
    here = MixtureConfig({"a": MixtureSource(["/here/a"]), "b": MixtureSource("b", streaming=True)})
    assert there.choices == here.choices  # what is read is in the fingerprints of the sources
    for other in (
        MixtureConfig({"a": MixtureSource("there/a")}),
        MixtureConfig({"b": MixtureSource("there/b"), "a": MixtureSource("there/a")}),
        MixtureConfig(there.sources, temperature=2.0),
        MixtureConfig(there.sources, rates="weights", weights={"a": 1, "b": 2}),
        MixtureConfig({"a": MixtureSource("there/a", size=5), "b": MixtureSource("there/b")}),
    ):
        assert other.choices != there.choices
