"""Special tokens at the end of a vocabulary: role markers of dialogues, and the sentinels of span corruption.

T5 counts its sentinels from the end: ``<extra_id_0>`` is the last token, ``<extra_id_1>`` the one before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count, takewhile
from typing import TYPE_CHECKING

import numpy as np
import tokenizers

if TYPE_CHECKING:
    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

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


def encode_with_sentinels(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of ``text``, in which names of sentinels stand for sentinels; those the tokenizer lacks stay text.

    A space before one belongs to the hidden span where tokens of words begin with their space.
    """
    known = sentinel_ids(tokenizer.backend)
    parts, ids, end = [], [], 0
    for match in SENTINEL.finditer(text):
        if int(match[1]) < len(known):
            before = text[end : match.start()]
            parts.append(before.removesuffix(" ") if tokenizer.spaced else before)
            ids.append(int(known[int(match[1])]))
            end = match.end()
    found: list[int] = []
    for part, number in zip(tokenizer.encode_batch([*parts, text[end:]]), [*ids, None], strict=True):
        found += [*part.tolist(), *([number] if number is not None else [])]
    return found
