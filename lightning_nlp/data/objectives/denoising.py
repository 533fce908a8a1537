"""Denoising: a text from a damaged copy of it (BART, Lewis et al. 2020, section 2.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lightning_nlp.data.objectives.example import Example
from lightning_nlp.data.objectives.sequence_to_sequence import sequence_to_sequence
from lightning_nlp.data.permutation import share

PERMUTE, SPANS, GAPS, MASK, DELETE, ROTATE, ROUND = range(7)
"""Keep the random numbers of one kind of damage apart from those of the others."""


@dataclass(frozen=True)
class Noise:
    """How a text is damaged, in this order. Shares are of tokens.

    Attributes:
        mask_id: the token that stands for hidden ones.
        permute_sentences: put sentences in a random order.
        infill: share hidden in spans, each replaced by one mask token.
        mean_length: of these spans, whose lengths are Poisson; an empty span inserts a mask token.
        mask: share replaced by a mask token each.
        delete: share left out.
        rotate: probability that the text begins at a random token, and what was before it comes last.
    """

    mask_id: int
    permute_sentences: bool = True
    infill: float = 0.3
    mean_length: float = 3.0
    mask: float = 0.0
    delete: float = 0.0
    rotate: float = 0.0


def denoising(
    ids: Any,
    id: str,
    key: tuple[int, ...],
    noise: Noise,
    start_id: int,
    eos_id: int | None,
    sentences: np.ndarray | None = None,
) -> Example | None:
    """Write a text, having read a damaged copy, which is never longer.

    The encoder reads ``damaged [eos]``; the decoder reads ``start text`` and its labels are ``text [eos]``.

    Args:
        ids: token ids ``[n]``.
        key: integers that no other visit of any document has; the damage is a function of them.
        sentences: number of the sentence of each token ``[n]``, growing.

    Returns:
        None when nothing is left of the text.
    """
    ids = np.asarray(ids, dtype=np.int32)
    damaged = ids
    if noise.permute_sentences and sentences is not None:
        damaged = permuted(damaged, sentences, (*key, PERMUTE))
    if noise.infill:
        damaged = infilled(damaged, noise, key)
    if noise.mask:
        damaged = masked(damaged, noise, (*key, MASK))
    if noise.delete:
        damaged = damaged[~chosen(len(damaged), noise.delete, (*key, DELETE))]
    if noise.rotate and len(damaged):
        often, where = share(np.arange(2), (*key, ROTATE))
        damaged = np.roll(damaged, -int(where * len(damaged))) if often < noise.rotate else damaged
    return sequence_to_sequence(damaged, ids, id, len(damaged) + 1, len(ids) + 1, start_id, eos_id)


def chosen(length: int, part: float, key: tuple[int, ...]) -> np.ndarray:
    """True for ``part`` of ``length`` places, rounded up or down at random so that it is met on average."""
    wanted = int(part * length + share(np.arange(1), (*key, ROUND))[0])
    found = np.zeros(length, dtype=bool)
    found[np.argsort(share(np.arange(length), key), kind="stable")[:wanted]] = True
    return found


def masked(ids: np.ndarray, noise: Noise, key: tuple[int, ...]) -> np.ndarray:
    """Some tokens are mask tokens, one for one."""
    return np.where(chosen(len(ids), noise.mask, key), np.int32(noise.mask_id), ids)


def permuted(ids: np.ndarray, sentences: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """Sentences in a random order."""
    names, lengths = np.unique(sentences, return_counts=True)
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    return np.concatenate([parts[place] for place in np.argsort(share(names, key), kind="stable")] or [ids])


def infilled(ids: np.ndarray, noise: Noise, key: tuple[int, ...]) -> np.ndarray:
    """Spans of ``ids [n]`` replaced by a mask token each, and mask tokens inserted; not longer than ``ids``.

    The tokens that stay have gaps between them; spans go to different ones, all choices being equally likely, so that
    two masks never stand side by side.
    """
    wanted = int(noise.infill * len(ids) + share(np.arange(1), (*key, ROUND))[0])
    lengths = poisson_spans(wanted, noise.mean_length, (*key, SPANS))
    places = len(ids) - wanted + 1
    if len(lengths) > places:
        lengths = np.append(lengths[: places - 1], lengths[places - 1 :].sum())
    gaps = np.argsort(share(np.arange(places), (*key, GAPS)), kind="stable")[: len(lengths)]
    order = np.argsort(gaps)
    gaps, lengths = gaps[order], lengths[order]
    starts = gaps + np.cumsum(lengths) - lengths
    depth = np.zeros(len(ids) + 1, dtype=np.int64)
    np.add.at(depth, starts, 1)
    np.add.at(depth, starts + lengths, -1)
    return np.insert(ids[np.cumsum(depth)[:-1] == 0], gaps, noise.mask_id)


def poisson_spans(total: int, mean: float, key: tuple[int, ...]) -> np.ndarray:
    """Poisson lengths drawn until they hold ``total`` tokens; the last one is cut. Not more of them than ``total``."""
    table, found, held = poisson_table(mean), np.zeros(0, dtype=np.int64), 0
    size = int(total / mean) + 16
    while held < total:
        drawn = np.searchsorted(table, share(np.arange(len(found), len(found) + size), key), side="right")
        found = np.append(found, drawn)
        held = int(found.sum())
    ends = np.cumsum(found)
    found = found[: int(np.searchsorted(ends, total)) + 1] if total else found[:0]
    if total:
        found[-1] -= int(found.sum()) - total
    spare = total - int(np.count_nonzero(found))  # insertions beyond would make the text longer
    return found[(found > 0) | (np.cumsum(found == 0) <= spare)]


@lru_cache(maxsize=8)
def poisson_table(mean: float) -> np.ndarray:
    """Probabilities that a Poisson number is at most 0, 1, 2, ..."""
    numbers = np.arange(int(mean + 12 * math.sqrt(mean) + 12))
    logarithms = numbers * math.log(mean) - mean - np.array([math.lgamma(number + 1) for number in numbers])
    return np.cumsum(np.exp(logarithms))
