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


def named_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Tokens that may stand by their names in prompts and answers, as far as a tokenizer has them: mask, sentinels."""
    found = {sentinel(number): int(id) for number, id in enumerate(sentinel_ids(tokenizer.backend))}
    return found if tokenizer.mask_id is None else {tokenizer.mask_name: tokenizer.mask_id, **found}


def encode_with_sentinels(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of ``text``, in which names of sentinels stand for sentinels; those the tokenizer lacks stay text."""
    known = named_ids(tokenizer)
    return encode_named(tokenizer, text, {name: known[name] for name in known if name != tokenizer.mask_name})


def encode_named(tokenizer: Tokenizer, text: str, names: dict[str, int]) -> list[int]:
    """Ids of ``text``, in which ``names`` stand for tokens.

    A space before one belongs to what is hidden there, where tokens of words begin with their space.
    """
    if not names:
        return tokenizer.encode(text)
    *befores, last = re.split(f"({'|'.join(map(re.escape, names))})", text)
    parts, found = befores[::2], befores[1::2]
    if tokenizer.spaced:
        parts = [part.removesuffix(" ") for part in parts]
    ids: list[int] = []
    for part, name in zip(tokenizer.encode_batch([*parts, last]), [*found, None], strict=True):
        ids += [*part.tolist(), *([names[name]] if name is not None else [])]
    return ids


def decode_named(tokenizer: Tokenizer, ids: Iterable[int], names: dict[str, int]) -> str:
    """Text of ``ids``, in which the tokens of ``names`` are written; other special tokens are left out."""
    added = tokenizer.backend.get_added_tokens_decoder().items()
    hidden = {number for number, token in added if token.special} - set(names.values())
    return str(tokenizer.backend.decode([id for id in ids if id not in hidden], skip_special_tokens=False))
