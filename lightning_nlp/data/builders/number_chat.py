"""A dialogue set made by rules: somebody asks for German numbers, and goes on from the last answer.

"And the next one?" can only be answered by who remembers the conversation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nlp.data.builders import stdlib
from lightning_nlp.data.builders.numbers import english, german
from lightning_nlp.data.permutation import share

CONVERSATIONS = 4000
LARGEST = 999
EXCHANGES = 4
KEY = (20260102,)
FOLLOWING = {"And the next one?": 1, "And the one before?": -1, "And ten more?": 10}
"""What is asked after an answer, and how far that is from it."""


def conversation(number: int) -> list[dict[str, str]]:
    """The turns of conversation ``number``: one to four questions with their answers."""
    start, length, *steps = share(np.arange(2 + EXCHANGES), (*KEY, number)).tolist()
    value = 10 + int(start * (LARGEST - 60))
    turns = [("user", f"What is {english(value)} in German?"), ("assistant", german(value))]
    for step in steps[: int(length * EXCHANGES)]:
        question, distance = list(FOLLOWING.items())[int(step * len(FOLLOWING))]
        value += distance
        turns += [("user", question), ("assistant", german(value))]
    return [{"role": role, "content": text} for role, text in turns]


def conversations() -> Iterator[tuple[str, dict[str, Any]]]:
    """``(split, row)`` of every conversation."""
    for number in range(CONVERSATIONS):
        yield stdlib.split_by_name(str(number)), {"id": str(number), "messages": conversation(number)}


def build(directory: Path) -> dict[str, Any]:
    """Write the set to ``directory``; always the same bytes."""
    about = {
        "name": "number_chat",
        "task": "dialogue",
        "source": f"questions about numbers up to {LARGEST} in German words, made by rules",
        "fields": ["id", "messages"],
    }
    return stdlib.write(directory, stdlib.grouped(conversations()), about)
