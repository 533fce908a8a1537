"""Prefix language modelling: the rest of a text from its beginning, which is read in both directions.

Liu et al. 2018; Raffel et al. 2020, section 3.2.1. For decoders, whose queries see all of the ``prefix_mask``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_nlp.data.objectives.example import IGNORED, Example, with_ends
from lightning_nlp.data.objectives.pieces import LEAST
from lightning_nlp.data.permutation import share


def prefix_lm(
    prefix: Any, rest: Any, id: str, bos_id: int | None, eos_id: int | None, bytes: int = 0
) -> Example | None:
    """Predict ``rest [eos]`` token by token, having read ``[bos] prefix``.

    The start token counts to the prefix, so that ``n`` given tokens are ``n + 1`` places of the mask (seqio's
    ``decoder_causal_attention``); the place of the last given token already has the first label.

    Args:
        prefix: token ids that are given; may be empty.
        rest: token ids to predict.
        bytes: utf-8 bytes that ``rest`` spells.

    Returns:
        None when there is nothing to predict, or nothing to predict it from.
    """
    if len(rest) == 0:
        return None
    given = with_ends(prefix, bos_id, None)
    full = np.concatenate((given, with_ends(rest, None, eos_id)))
    if len(full) < 2:
        return None
    tokens, labels = full[:-1], full[1:].copy()
    labels[: max(len(given) - 1, 0)] = IGNORED
    seen = np.arange(len(tokens)) < len(given)
    return Example(tokens, labels, id, bytes, full_length=len(tokens), extras={"prefix_mask": seen})


def split_point(length: int, key: tuple[int, ...]) -> int:
    """How many of ``length`` tokens are given: 1 to ``length - 1``, all equally likely; a function of ``key`` alone."""
    return 1 + int(share(np.arange(1), key)[0] * (length - LEAST + 1))


def cut_pair(source: Any, target: Any, room: int) -> tuple[Any, Any]:
    """As much of ``source`` and ``target`` as ``room`` tokens hold, from their beginnings.

    The longer one is cut, and the other only where both have more than half.
    """
    if len(source) + len(target) <= room:
        return source, target
    short = min(len(source), len(target), room // 2)
    kept = (short, room - short) if len(source) <= len(target) else (room - short, short)
    return source[: kept[0]], target[: kept[1]]
