"""Keyed permutations and random streams that need no stored state: position in, place out."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np


def mix(values: np.ndarray) -> np.ndarray:
    """Scramble 64-bit numbers (finaliser of SplitMix64, Steele et al. 2014); works on whole arrays."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


def fold(key: tuple[int, ...]) -> np.uint64:
    """One 64-bit number from a tuple of integers; order matters. As :func:`mix`, on plain integers: keys are short."""
    state, mask = 0, 0xFFFFFFFFFFFFFFFF
    for part in (*key, len(key)):
        state = (state + part + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return np.uint64(state)


SMALL = 65536
"""Up to here a shuffled array is made: a Feistel network over few values favours some permutations."""
ROUNDS = 6


@functools.lru_cache(maxsize=4)
def shuffled(n: int, key: tuple[int, ...]) -> np.ndarray:
    """All of ``range(n)`` in an order drawn for ``key``."""
    return generator(*key).permutation(n)


def permute(index: Any, n: int, key: tuple[int, ...]) -> np.ndarray:
    """The places of ``index`` under a bijection of ``range(n)`` chosen by ``key``.

    Beyond ``SMALL``, a balanced Feistel network over the next power of four, walked until the result falls below ``n``
    (cycle walking, Black & Rogaway 2002): no array of size ``n`` is ever made.
    """
    index = np.atleast_1d(np.asarray(index, dtype=np.uint64))
    if n < 1 or (len(index) and int(index.max()) >= n):
        raise IndexError(f"index outside range({n})")
    if n <= SMALL:
        return shuffled(n, key)[index.astype(np.int64)]
    half = ((n - 1).bit_length() + 1) // 2
    low = np.uint64((1 << half) - 1)
    shift = np.uint64(half)
    keys = [fold((*key, number)) for number in range(ROUNDS)]

    def network(values: np.ndarray) -> np.ndarray:
        left, right = values >> shift, values & low
        for round_key in keys:
            left, right = right, left ^ (mix(right ^ round_key) & low)
        return (left << shift) | right

    result = network(index)
    while (outside := result >= n).any():
        result[outside] = network(result[outside])
    return result.astype(np.int64)


def generator(*key: int) -> np.random.Generator:
    """A counter-based generator (Philox) for an integer key."""
    return np.random.Generator(np.random.Philox(key=int(fold(key))))


def share(index: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """A stable number in [0, 1) for every index, for splitting by hash."""
    with np.errstate(over="ignore"):
        scrambled = mix(index.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + fold(key))
    return (scrambled >> np.uint64(11)).astype(np.float64) / 2.0**53
