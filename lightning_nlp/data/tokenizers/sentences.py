"""Where sentences end: a rule of thumb that needs no model, for objectives that move sentences around."""

from __future__ import annotations

import re

import numpy as np

from lightning_nlp.data.tokenizers.tokenizer import Tokenizer

END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？]+[”’」』）]*|\n+")  # noqa: RUF001
"""A full stop before a space, one of CJK scripts, or the end of a line. The space belongs to what follows."""


def sentence_starts(text: str) -> np.ndarray:
    """Places in ``text`` at which its second and further sentences begin."""
    return np.array([match.end() for match in END.finditer(text) if match.end() < len(text)], dtype=np.int64)


def encode_sentences(tokenizer: Tokenizer, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids of texts as ``encode_batch`` gives them, each with the number of the sentence that every token is in.

    Raises:
        DataError: text that is not valid Unicode.
    """
    ids = tokenizer.encode_batch(texts)  # says what is wrong where something is
    found = tokenizer.backend.encode_batch(texts, add_special_tokens=False)
    return [
        (numbers, np.searchsorted(sentence_starts(text), [begin for begin, _ in encoding.offsets], side="right"))
        for numbers, text, encoding in zip(ids, texts, found, strict=True)
    ]
