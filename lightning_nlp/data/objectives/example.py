"""What one document gives to learn from, and what all objectives need to make it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

IGNORED = -100
"""Label of a position without loss."""


@dataclass(slots=True)
class Example:
    """What one document gives to learn from.

    Attributes:
        tokens: int32 ``[n]``.
        labels: int32 ``[n]`` (-100 = no loss), or one class number.
        id: of the document.
        bytes: utf-8 bytes the labels spell; 0 where that means nothing.
        full_length: tokens before anything was cut, those of the source too.
        truncated: tokens were cut off.
        source: int32 ``[s]``, what an encoder reads while a decoder reads ``tokens``.
        place: number of the row in its split (evaluation).
        text: the document itself, where somebody wants to see it again (predictions).
        reference: the right answer, where it is known (predictions).
        extras: further fields of a batch, a value ``[n]`` a token (``prefix_mask``, ``token_types``); padding gets 0.
        more: further examples that the same document gives, in order; only its first example has them.
        part: number of this example among those of its document.
        words: of the text that the labels spell (evaluation); 0 where that is not known.
        origin: name of the source of a mixture that it is evaluated for.
    """

    tokens: np.ndarray
    labels: Any
    id: str
    bytes: int = 0
    full_length: int = 0
    truncated: bool = False
    source: np.ndarray | None = None
    place: int = -1
    text: str = ""
    reference: str | None = None
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    more: list[Example] = field(default_factory=list)
    part: int = 0
    words: int = 0
    origin: str = ""

    @property
    def parts(self) -> list[Example]:
        """All examples of the document."""
        return [self, *self.more]

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the row and of its source."""
        return len(self.tokens), 0 if self.source is None else len(self.source)

    @property
    def bulk(self) -> tuple[int, int]:
        """What to sort by: the longer side, then both. Sorted by one side first, the other is padded more."""
        return max(self.lengths), sum(self.lengths)


def with_ends(ids: Any, bos_id: int | None, eos_id: int | None) -> np.ndarray:
    """``[bos] ids [eos]``, each where there is one."""
    parts = [[bos_id]] if bos_id is not None else []
    parts += [ids] + ([[eos_id]] if eos_id is not None else [])
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def cut_to(full: np.ndarray, max_length: int, eos_id: int | None) -> np.ndarray:
    """The first ``max_length`` tokens, the last of them replaced by the end token where there is one."""
    if len(full) <= max_length:
        return full
    cut = full[:max_length].copy()
    if eos_id is not None:
        cut[-1] = eos_id
    return cut


def in_turn(examples: list[Example]) -> Example | None:
    """The examples of one document as one that has the others behind it; None where there are none."""
    for number, example in enumerate(examples):
        example.part = number
    if not examples:
        return None
    examples[0].more = examples[1:]
    return examples[0]
