"""Bytes that tokens spell, for losses a byte."""

from __future__ import annotations

import numpy as np

from lightning_nlp.data.tokenizers.tokenizer import Tokenizer


class TokenBytes:
    """Utf-8 bytes of token sequences, from a table that is made once.

    Args:
        tokenizer: whose tokens.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        special = set(tokenizer.special_ids)
        numbers = (0 if token in special else tokenizer.bytes_of(token) for token in range(tokenizer.vocab_size))
        self.table = np.fromiter(numbers, dtype=np.int64, count=tokenizer.vocab_size)

    def __call__(self, ids: np.ndarray) -> int:
        return int(self.table[ids].sum())
