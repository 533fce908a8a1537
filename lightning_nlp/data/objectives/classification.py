"""Classification and regression: one class, several labels or a number for a text, or for a pair of texts."""

from __future__ import annotations

from typing import Any

import numpy as np

from lightning_nlp.data.objectives.example import Example, cut_to, with_ends
from lightning_nlp.data.objectives.prefix_lm import cut_pair

Target = int | np.float32 | np.ndarray
"""A class number; a number; or float32 ``[C]`` of zeros and ones."""


def classification(
    ids: Any, label: Target, id: str, max_length: int, bos_id: int | None, eos_id: int | None
) -> Example | None:
    """What to say of a text; a longer text keeps its beginning and its end token. None for an empty text."""
    if len(ids) == 0:
        return None
    full = with_ends(ids, bos_id, eos_id)
    cut = cut_to(full, max_length, eos_id)
    return Example(cut, label, id, full_length=len(full), truncated=len(cut) < len(full))


def pair_classification(
    first: Any, second: Any, label: Target, id: str, max_length: int, bos_id: int | None, eos_id: int
) -> Example | None:
    """What to say of two texts: ``[bos] first eos second eos``, whose ``token_types`` are 0 and 1 (BERT).

    Of texts that are too long the longer one is cut at its end; ``max_length`` has room for a token of each.

    Returns:
        None when one of the two is empty.
    """
    if len(first) == 0 or len(second) == 0:
        return None
    before = 0 if bos_id is None else 1
    one, two = cut_pair(first, second, max_length - before - 2)
    left, right = with_ends(one, bos_id, eos_id), with_ends(two, None, eos_id)
    tokens = np.concatenate((left, right))
    types = {"token_types": np.repeat(np.array([0, 1], dtype=np.int32), (len(left), len(right)))}
    full = len(first) + len(second) + before + 2
    return Example(tokens, label, id, full_length=full, truncated=len(tokens) < full, extras=types)
