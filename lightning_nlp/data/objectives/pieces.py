"""Long documents for objectives that need a text in one row: consecutive pieces, each an example of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

LEAST = 2
"""Tokens of a piece, at least: one is hidden, and one is what it is told from."""


def pieces(ids: Any, length: int) -> list[tuple[int, np.ndarray]]:
    """``(offset, tokens)`` of consecutive pieces of ``length`` tokens; the last one has what is left.

    Every token is in one piece. Where a single token would be left, the piece before gives it one up.

    Args:
        ids: token ids ``[n]``.
        length: at least 3.
    """
    ids = np.asarray(ids, dtype=np.int32)
    starts = list(range(0, max(len(ids), 1), length))
    if len(starts) > 1 and len(ids) - starts[-1] < LEAST:
        starts[-1] = len(ids) - LEAST
    ends = [*starts[1:], len(ids)]
    return [(start, ids[start:end]) for start, end in zip(starts, ends, strict=True)]


def piece_id(id: str, offset: int) -> str:
    """Id of the piece that begins at ``offset``: the document's own for its first."""
    return f"{id}@{offset}" if offset else id
