"""Keyed permutations are bijections that differ by key and favour no place."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_nlp.data.permutation import fold, generator, mix, permute, share

KEYS = st.lists(st.integers(-(2**70), 2**70), max_size=4).map(tuple)


@settings(max_examples=150, deadline=None)
@given(n=st.integers(1, 5000), key=KEYS)
def test_bijection(n, key):
    places = permute(np.arange(n), n, key)
    assert places.dtype == np.int64
    assert np.array_equal(np.sort(places), np.arange(n))


@pytest.mark.parametrize(
    "n", [*range(1, 40), 255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097, 65536, 65537, 100_003, 262_144, 262_145]
)
def test_bijection_around_powers(n):
    assert np.array_equal(np.sort(permute(np.arange(n), n, (n, 1))), np.arange(n))


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 2**40), key=KEYS, data=st.data())
def test_one_at_a_time_is_the_same_as_all_at_once(n, key, data):
    index = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True))
    together = permute(np.array(index), n, key)
    assert np.array_equal(together, np.concatenate([permute(i, n, key) for i in index]))
    assert len(set(together.tolist())) == len(index)
    assert together.min() >= 0
    assert together.max() < n


@settings(max_examples=60, deadline=None)
@given(n=st.integers(64, 3000), keys=st.lists(st.integers(0, 2**63), min_size=2, max_size=2, unique=True))
def test_keys_give_different_orders(n, keys):
    one, two = (permute(np.arange(n), n, (key,)) for key in keys)
    assert np.array_equal(one, permute(np.arange(n), n, (keys[0],)))
    assert (one == two).mean() < 0.2


@pytest.mark.parametrize(("one", "two"), [((1, 2), (2, 1)), ((1,), (1, 0)), ((), (0,)), ((0, 5), (5,)), ((-1,), (1,))])
def test_order_and_length_of_a_key_matter(one, two):
    assert fold(one) != fold(two)
    assert not np.array_equal(permute(np.arange(500), 500, one), permute(np.arange(500), 500, two))


@pytest.mark.parametrize("n", [2, 3, 5, 10, 16, 37])
def test_every_place_is_equally_likely(n):
    draws = 3000
    tables = np.stack([permute(np.arange(n), n, (seed, 7)) for seed in range(draws)])
    for column in (0, n // 2, n - 1):
        counts = np.bincount(tables[:, column], minlength=n)
        statistic = ((counts - draws / n) ** 2 / (draws / n)).sum()
        assert statistic < (n - 1) + 5 * np.sqrt(2 * (n - 1)) + 5, (column, counts)  # far out in the chi-square tail


@pytest.mark.parametrize("n", [65_537, 100_000, 10**9])
def test_every_part_of_a_large_range_is_equally_likely(n):
    for index in (0, n // 2, n - 1):
        places = np.concatenate([permute(index, n, (seed, 7)) for seed in range(1000)])
        counts = np.bincount(places * 10 // n, minlength=10)
        assert ((counts - 100) ** 2 / 100).sum() < 40, (index, counts)


@pytest.mark.parametrize("n", [1000, 4096, 10_000, 100_000])
def test_neighbours_are_scattered(n):
    places = permute(np.arange(n), n, (3,)).astype(float)
    assert abs(np.corrcoef(np.arange(n), places)[0, 1]) < 5 / np.sqrt(n)
    assert abs(np.corrcoef(places[:-1], places[1:])[0, 1]) < 5 / np.sqrt(n)
    assert abs((places[: n // 2] < n / 2).mean() - 0.5) < 2.5 / np.sqrt(n)


def test_no_memory_is_needed_for_a_huge_range():
    places = permute([0, 1, 10**15 - 1], 10**15, (1,))
    assert len(set(places.tolist())) == 3


@pytest.mark.parametrize(("index", "n"), [(0, 0), (5, 5), ([0, 9], 5), (np.array([-1]), 5), (0, -3)])
def test_outside_is_refused(index, n):
    with pytest.raises(IndexError, match="outside range"):
        permute(index, n, (1,))


def test_no_index_gives_no_place():
    assert permute(np.array([], dtype=np.int64), 5, (1,)).tolist() == []


def test_the_scramble_is_that_of_splitmix64():
    state = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)  # published first outputs for seed 0
    assert [hex(value) for value in mix(state)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4", "0x6c45d188009454f"]


def test_generators_repeat_by_key():
    assert np.array_equal(generator(1, 2).random(5), generator(1, 2).random(5))
    assert not np.array_equal(generator(1, 2).random(5), generator(2, 1).random(5))


def test_share_is_uniform_and_stable():
    index = np.arange(20_000)
    values = share(index, (4,))
    assert values.min() >= 0
    assert values.max() < 1
    counts, _ = np.histogram(values, bins=20, range=(0, 1))
    assert ((counts - 1000) ** 2 / 1000).sum() < 60
    assert np.array_equal(values[100:200], share(index[100:200], (4,)))
    assert not np.array_equal(values, share(index, (5,)))
