"""Text whose tokens are known already, and the one way to the tokens of a text, known already or not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_nlp.data.tokenizers.tokenizer import Tokenizer


@dataclass(slots=True, frozen=True)
class Encoded:
    """A text in a prepared shard.

    Attributes:
        ids: int32 ``[n]``, without special tokens.
        bytes: length of the text in UTF-8.
        starts: bool ``[n]``, True where a token begins a word; None where the shards do not know.
    """

    ids: np.ndarray
    bytes: int
    starts: np.ndarray | None = None


Text = str | Encoded


def token_ids(tokenizer: Tokenizer, texts: list[Text]) -> list[np.ndarray]:
    """Ids of many texts, int32 each, without special tokens.

    Raises:
        DataError: text that is not valid Unicode.
    """
    fresh = iter(tokenizer.encode_batch([text for text in texts if isinstance(text, str)]))
    return [text.ids if isinstance(text, Encoded) else next(fresh) for text in texts]


def token_words(tokenizer: Tokenizer, texts: list[Text]) -> list[tuple[np.ndarray, np.ndarray]]:
    """As :func:`token_ids`, each with a number for every token that is the same within a word and rises with it."""
    fresh = iter(tokenizer.encode_words([text for text in texts if isinstance(text, str)]))
    found = []
    for text in texts:
        if isinstance(text, Encoded):
            assert text.starts is not None  # such shards are made for those who ask for words, and found by them alone
            found.append((text.ids, np.cumsum(text.starts, dtype=np.int32) - 1))
        else:
            found.append(next(fresh))
    return found


def utf8_size(text: Text) -> int:
    """Bytes of a text in UTF-8."""
    return text.bytes if isinstance(text, Encoded) else len(text.encode())
