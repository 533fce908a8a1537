"""Lanes that arrange a window: first-fit-decreasing rows, and groups of a token budget; nothing lost, exact restores."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from corpora import APART, make_order, prepare
from hypothesis import given
from hypothesis import strategies as st

from lightning_nlp.data.order import budget as budget_module
from lightning_nlp.data.order.budget import BudgetLane, cost, cut_at, even_cut
from lightning_nlp.data.order.documents import SourceDocuments
from lightning_nlp.data.order.lanes import FittedLane, first_fit_decreasing
from lightning_nlp.data.permutation import generator

LENGTHS = [int(value) for value in np.clip(np.random.default_rng(1).lognormal(np.log(60), 0.8, 2000), 1, 512)]


def naive_first_fit(sizes, capacity):
    bins = []
    for place in sorted(range(len(sizes)), key=lambda place: -sizes[place]):
        target = next(
            (content for content in bins if sum(sizes[at] for at in content) + sizes[place] <= capacity), None
        )
        if target is None:
            bins.append([place])
        else:
            target.append(place)
    return bins


@given(st.lists(st.integers(1, 20), max_size=60))
def test_first_fit_decreasing_is_that_of_trying_every_bin(sizes):
    assert first_fit_decreasing(sizes, 20) == naive_first_fit(sizes, 20)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="21 does not fit into 20"):
        first_fit_decreasing([3, 21], 20)


def fitted(lengths, *, lanes=1, length=32, window=20, seed=0):
    order = make_order(lengths, lanes=lanes, seed=seed)
    return [
        FittedLane(SourceDocuments(order, lane, lanes, prepare), rows_per_window=window, length=length, seed=seed)
        for lane in range(lanes)
    ]


def test_fitted_rows_hold_whole_documents_once_an_epoch():
    lengths = [size for size in LENGTHS[:60] if size <= 100]
    lengths = lengths[: len(lengths) // 20 * 20]
    (lane,) = fitted(lengths, length=100, window=20)
    seen: Counter[int] = Counter()
    while lane.window < len(lengths) // 20 - 1 or lane.emitted < len(lane._made):
        row = lane.next()
        for number in range(1, int(row.segments.max()) + 1):
            here = row.segments == number
            tokens = row.tokens[here]
            document = int(tokens[0]) // APART
            assert tokens.tolist() == [document * APART + place for place in range(lengths[document])]
            assert row.labels[here].tolist() == (tokens + 1).tolist()
            assert row.positions[here].tolist() == list(range(lengths[document]))
            seen[document] += 1
        assert (row.labels[row.segments == 0] == -100).all()
    assert seen == Counter(range(len(lengths)))


def test_a_document_longer_than_a_row_is_cut_into_rows():
    (lane,) = fitted([70] * 8, length=32, window=2)
    rows = [lane.next() for _ in range(5)]
    pairs = sorted(int(token) for row in rows for token in row.tokens[row.segments > 0])
    assert len(pairs) == 2 * 70
    assert {token % APART for token in pairs} == set(range(70))
    assert lane.state()["seen"]["split"] == 2


def test_fitted_rows_leave_about_one_percent():
    lengths = [min(size, 512) for size in LENGTHS]
    (lane,) = fitted(lengths, length=512, window=1000)
    lane.next()
    padding = np.mean([(row.segments == 0).mean() for row in lane._made])
    assert padding < 0.02, padding


pairs_of_lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=1, max_size=40)


@given(pairs_of_lengths, st.integers(96, 400))
def test_groups_are_the_fewest_that_keep_the_budget(lengths, budget):
    ends = cut_at(lengths, budget)
    groups = [lengths[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    assert sum(map(len, groups)) == len(lengths)
    costs = [cost(len(group), tuple(np.max(group, axis=0).tolist())) for group in groups]
    assert all(value <= budget for value in costs)
    fewest = [0] + [len(lengths)] * len(lengths)  # by dynamic programming over all cuts
    for end in range(1, len(lengths) + 1):
        for start in range(end):
            part = np.max(lengths[start:end], axis=0).tolist()
            if cost(end - start, tuple(part)) <= budget:
                fewest[end] = min(fewest[end], fewest[start] + 1)
    assert len(groups) == fewest[-1]
    even = even_cut(lengths, budget)
    assert len(even) == len(ends)
    assert even[-1] == len(lengths)
    assert even == sorted(set(even))


def pairs(rows):
    found = []
    for example, row in zip(prepare(rows), rows, strict=True):
        size = int(generator(row["number"]).integers(1, 200))
        if example is not None:
            example.source = np.arange(size, dtype=np.int32)
            example.full_length += size
        found.append(example)
    return found


def budgeted(how=prepare, *, lanes=2, budget=2048, groups=budget_module.GROUPS, seed=3):
    order = make_order(LENGTHS, lanes=lanes, seed=seed, block_rows=64)
    return [
        BudgetLane(SourceDocuments(order, lane, lanes, how), budget=budget, groups=groups, seed=seed)
        for lane in range(lanes)
    ]


@pytest.mark.parametrize("how", [prepare, pairs])
def test_groups_keep_the_budget_and_lose_nothing(how):
    lanes = budgeted(how)
    order = lanes[0].documents.order
    for number, lane in enumerate(lanes):
        groups = [lane.next() for _ in range(3 * budget_module.GROUPS)]
        costs = []
        for group in groups:
            longest = (
                max(len(row.tokens) for row in group),
                max(0 if row.source is None else len(row.source) for row in group),
            )
            costs.append(cost(len(group), longest))
        assert max(costs) <= 2048
        assert np.mean(costs) > 0.9 * 2048
        # Windows are full where they end, so what three of them hold is one run of the lane's documents.
        read = [row.ids[0] for group in groups for row in group]
        expected = []
        for block in range(number, 10_000, len(lanes)):
            reader = order.reader(block)
            expected += [row["id"] for row in reader.read(0, len(reader)) if row["pairs"]]
            if len(expected) >= len(read):
                break
        assert Counter(read) == Counter(expected[: len(read)])


def test_budget_groups_waste_little_and_lanes_agree_on_lengths():
    lanes = budgeted(budget=1024)
    waste, apart = [], []
    for _ in range(2 * budget_module.GROUPS):
        groups = [lane.next() for lane in lanes]
        sizes = [[len(row.tokens) for row in group] for group in groups]
        longest = max(map(max, sizes))
        together = sum(map(len, sizes)) * longest
        waste.append(1 - sum(map(sum, sizes)) / together)
        apart.append(together / (2 * 1024))
    assert np.mean(waste) < 0.12
    assert np.mean(apart) < 1.05  # two lanes in one micro-batch stay near the budget of both


@pytest.mark.parametrize("groups", [64, 7])
@pytest.mark.parametrize("steps", [0, 1, 63, 64, 65, 200])
def test_budget_lanes_restore_exactly(steps, groups):
    def content(group):
        return [row.ids for row in group]

    (first, _) = budgeted(groups=groups)
    for _ in range(steps):
        first.next()
    state = first.state()
    expected = [content(first.next()) for _ in range(150)]
    again = budgeted(groups=groups)[0]
    again.restore(state)
    assert [content(again.next()) for _ in range(150)] == expected
    assert again.state() == first.state()
    assert all(isinstance(value, int) for name, value in state.items() if name != "seen")


@pytest.mark.parametrize("steps", [0, 1, 9, 30])
def test_fitted_lanes_restore_exactly(steps):
    (first,) = fitted(LENGTHS[:300], length=600, window=40)
    for _ in range(steps):
        first.next()
    state = first.state()
    expected = [first.next().ids for _ in range(40)]
    (again,) = fitted(LENGTHS[:300], length=600, window=40)
    again.restore(state)
    assert [again.next().ids for _ in range(40)] == expected


def test_counts_in_the_state_do_not_run_ahead():
    (lane, _) = budgeted()
    used = sum(len(lane.next()) for _ in range(budget_module.GROUPS))
    lane.next()
    assert lane.state()["documents"] == used  # where the second window began
    assert lane.state()["seen"]["documents"] == lane.documents.counts.documents > used
