"""Special tokens at the end of a vocabulary: role markers of dialogues, and the sentinels of span corruption.

T5 counts its sentinels from the end: ``<extra_id_0>`` is the last token, ``<extra_id_1>`` the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count, takewhile

import numpy as np
import tokenizers

SENTINEL = re.compile(r"<extra_id_(\d+)>")


def sentinel(number: int) -> str:
    """Name of a sentinel."""
    return f"<extra_id_{number}>"


def added_names(extra: Iterable[str], sentinels: int) -> list[str]:
    """Names to add, in the order of their ids."""
    return [*extra, *(sentinel(number) for number in reversed(range(sentinels)))]


def add_tokens(backend: tokenizers.Tokenizer, names: list[str]) -> None:
    """Add special tokens behind all others."""
    if names:
        backend.add_special_tokens(names)


def sentinel_ids(backend: tokenizers.Tokenizer) -> np.ndarray:
    """Ids of the sentinels that a tokenizer has, int32: ``<extra_id_0>`` first."""
    ids = (backend.token_to_id(sentinel(number)) for number in count())
    return np.array(list(takewhile(lambda number: number is not None, ids)), dtype=np.int32)
