"""A classification set made by rules: an English and a German number, and what can be said of them.

``label``: whether both are the same number (a pair task). ``properties`` of the English one, none to four of them
(a multi-label task), and its ``size``, the logarithm to base 10 of one more (a regression task).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nlp.data.builders import stdlib
from lightning_nlp.data.builders.numbers import LARGEST, english, german
from lightning_nlp.data.permutation import share

ROWS = 6000
KEY = (20260103,)
PROPERTIES = {
    "even": lambda value: value % 2 == 0,
    "round": lambda value: value % 10 == 0,
    "short": lambda value: len(english(value).split()) == 1,
    "thousands": lambda value: value >= 1000,
}


def rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """``(split, row)``; half of the pairs are equal, the others are near each other."""
    for number in range(ROWS):
        size, same, distance, side = share(np.arange(4), (*KEY, number)).tolist()
        value = int(10 ** (size * math.log10(LARGEST + 1))) - 1  # as many small ones as large ones
        shift = int(1 + 9 * distance) * (1 if side < 0.5 or value < 10 else -1)
        other = value if same < 0.5 else min(value + shift, LARGEST)
        row = {
            "id": str(number),
            "text": english(value),
            "text_pair": german(other),
            "label": "same" if other == value else "different",
            "properties": [name for name, holds in PROPERTIES.items() if holds(value)],
            "size": round(math.log10(value + 1), 4),
        }
        yield stdlib.split_by_name(str(number)), row


def build(directory: Path) -> dict[str, Any]:
    """Write the set to ``directory``; always the same bytes."""
    about = {
        "name": "number_facts",
        "task": "classification of texts and of pairs, several labels, regression",
        "source": f"numbers from 0 to {LARGEST} in English and German words, made by rules",
        "fields": ["id", "text", "text_pair", "label", "properties", "size"],
        "labels": ["different", "same"],
        "properties": list(PROPERTIES),
    }
    return stdlib.write(directory, stdlib.grouped(rows()), about)
