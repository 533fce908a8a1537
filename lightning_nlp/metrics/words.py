"""Texts to words, in any script."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

ALONE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts without spaces between words: each character, with its marks, is a word."""
ASCII_WORD = re.compile(r"[a-z0-9]+")


@cache
def pattern() -> Any:
    """A character of such a script, or a run of letters, digits and marks of others."""
    import regex  # a hundredth of a second that only those pay who score texts

    return regex.compile(rf"[{ALONE}]\p{{M}}*|[[\p{{L}}\p{{N}}\p{{M}}]--[{ALONE}]]+", regex.V1)


def words(text: str) -> list[str]:
    """Lower-cased words of any script, without punctuation; ``ü`` is one letter however it was typed (NFC)."""
    return pattern().findall(unicodedata.normalize("NFC", text).lower())


def ascii_words(text: str) -> list[str]:
    """As rouge-score's own tokenizer without a stemmer: whatever is no ASCII letter or digit stands between words."""
    return ASCII_WORD.findall(text.lower())
