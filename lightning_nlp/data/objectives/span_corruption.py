"""Span corruption: the hidden spans of a text from what is left of it (T5, Raffel et al. 2020, section 3.1.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_nlp.data.objectives.example import Example
from lightning_nlp.data.objectives.pieces import LEAST
from lightning_nlp.data.objectives.sequence_to_sequence import sequence_to_sequence
from lightning_nlp.data.permutation import share


@dataclass(frozen=True)
class Spans:
    """Which part of a text is hidden, and in how many spans.

    Attributes:
        density: share of the tokens that are hidden.
        mean_length: of a span.
    """

    density: float = 0.15
    mean_length: float = 3.0

    def of(self, length: int) -> tuple[int, int]:
        """Hidden tokens and spans of a text of ``length`` tokens; at least one token is hidden and one is not."""
        hidden = min(max(round(length * self.density), 1), length - 1)
        spans = max(round(hidden / self.mean_length), 1)
        return hidden, min(spans, hidden, length - hidden)

    def lengths(self, length: int) -> tuple[int, int]:
        """Tokens of the source and of the target that ``length`` tokens give, the end tokens included."""
        hidden, spans = self.of(length)
        return length - hidden + spans + 1, hidden + spans + 1

    def raw_length(self, source_length: int) -> int:
        """Tokens of the longest text whose source fits into ``source_length``: what documents are cut into.

        T5's ``random_spans_helper``: 568 tokens fill a source of 512 and give a target of 114. 0 where none fits.
        """
        if self.lengths(LEAST)[0] > source_length:
            return 0
        length = LEAST
        while self.lengths(length + 1)[0] <= source_length:
            length += 1
        return length


def span_mask(length: int, spans: Spans, key: tuple[int, ...]) -> np.ndarray:
    """True where a token is hidden, ``[length]``: a function of ``key`` alone.

    Lengths of the hidden spans, and of what is between them, are uniform over all ways to cut the two numbers of tokens
    into that many parts. A text begins with what is not hidden.
    """
    hidden, count = spans.of(length)
    shown = length - hidden
    draws = share(np.arange(length), key)
    parts = np.empty(2 * count, dtype=np.int64)
    parts[0::2] = composition(shown, count, draws[:shown])
    parts[1::2] = composition(hidden, count, draws[shown:])
    return np.repeat(np.arange(2 * count) % 2 == 1, parts)


def composition(total: int, parts: int, draws: np.ndarray) -> np.ndarray:
    """``total`` as a sum of ``parts`` positive numbers, every way equally likely; ``draws [total]`` in [0, 1)."""
    borders = np.sort(np.argsort(draws[: total - 1], kind="stable")[: parts - 1]) + 1
    return np.diff(np.concatenate(([0], borders, [total])))


def corrupt(ids: np.ndarray, hidden: np.ndarray, sentinels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is left of ``ids [n]`` and what is hidden, as ``(source, target)``.

    In the source every hidden span is one sentinel, another one each; in the target the sentinels stand before the
    tokens they stand for.

    Args:
        ids: token ids.
        hidden: bool ``[n]``.
        sentinels: at least as many as there are spans.
    """
    begins = hidden & ~np.concatenate(([False], hidden[:-1]))
    names = sentinels[np.cumsum(begins)[begins] - 1]
    source = np.where(begins, 0, ids)
    source[begins] = names
    target = np.insert(ids[hidden], np.flatnonzero(begins[hidden]), names)
    return source[~hidden | begins], target


def span_corruption(
    ids: Any,
    id: str,
    key: tuple[int, ...],
    spans: Spans,
    sentinels: np.ndarray,
    start_id: int,
    eos_id: int | None,
) -> Example | None:
    """Write the hidden spans of a text, having read the rest.

    The encoder reads ``corrupted [eos]``; the decoder reads ``start target`` and its labels are ``target [eos]``.

    Args:
        ids: token ids ``[n]``, not longer than what fits the model (:meth:`Spans.raw_length`).
        key: integers that no other visit of any document has; what is hidden is a function of them.
        sentinels: ids, the first one first.

    Returns:
        None when there is nothing to hide and to show.
    """
    ids = np.asarray(ids, dtype=np.int32)
    if len(ids) < LEAST:
        return None
    source, target = corrupt(ids, span_mask(len(ids), spans, key), sentinels)
    return sequence_to_sequence(source, target, id, len(source) + 1, len(target) + 1, start_id, eos_id)
