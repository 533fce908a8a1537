"""A translation set made by rules: numbers in English words and in German words.

German turns tens and ones around (twenty-one, einundzwanzig) and writes a number below a million as one word, so a
model has to move things and cannot copy them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nlp.data.builders import stdlib
from lightning_nlp.data.permutation import permute

LARGEST = 999_999
PAIRS = 20_000
KEY = (20260101,)


def words(text: str) -> list[str]:
    """The words of a line."""
    return text.split()


ENGLISH = words(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
ENGLISH_TENS = words("twenty thirty forty fifty sixty seventy eighty ninety")
GERMAN = words(
    "null ein zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn"
)
GERMAN_TENS = words("zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig")


def english(number: int) -> str:
    """American English: ``342_021 -> three hundred forty-two thousand twenty-one``."""
    if number >= 1000:
        thousands, rest = divmod(number, 1000)
        return f"{english(thousands)} thousand" + (f" {english(rest)}" if rest else "")
    if number >= 100:
        hundreds, rest = divmod(number, 100)
        return f"{ENGLISH[hundreds]} hundred" + (f" {english(rest)}" if rest else "")
    if number >= 20:
        tens, ones = divmod(number, 10)
        return ENGLISH_TENS[tens - 2] + (f"-{ENGLISH[ones]}" if ones else "")
    return ENGLISH[number]


def german(number: int) -> str:
    """``342_021 -> dreihundertzweiundvierzigtausendeinundzwanzig``."""
    stem = german_stem(number)
    return f"{stem}s" if number % 100 == 1 else stem  # eins stands alone, or at the end: hunderteins


def german_stem(number: int) -> str:
    """As a part of a longer word, in which one is ``ein``."""
    if number >= 1000:
        thousands, rest = divmod(number, 1000)
        return f"{german_stem(thousands)}tausend" + (german_stem(rest) if rest else "")
    if number >= 100:
        hundreds, rest = divmod(number, 100)
        return f"{GERMAN[hundreds]}hundert" + (german_stem(rest) if rest else "")
    if number >= 20:
        tens, ones = divmod(number, 10)
        return (f"{GERMAN[ones]}und" if ones else "") + GERMAN_TENS[tens - 2]
    return GERMAN[number]


def pairs() -> Iterator[tuple[str, dict[str, Any]]]:
    """``(split, row)`` of different numbers: as many of three digits as there are, the others drawn from all."""
    drawn = permute(np.arange(PAIRS), LARGEST + 1, KEY).tolist()
    for number in dict.fromkeys([*range(1000), *drawn]):
        row = {"id": str(number), "source": english(number), "target": german(number)}
        yield stdlib.split_by_name(str(number)), row


def build(directory: Path) -> dict[str, Any]:
    """Write the set to ``directory``; always the same bytes."""
    about = {
        "name": "numbers",
        "task": "translation",
        "source": f"numbers from 0 to {LARGEST} in English and German words, made by rules",
        "fields": ["id", "source", "target"],
    }
    return stdlib.write(directory, stdlib.grouped(pairs()), about)
