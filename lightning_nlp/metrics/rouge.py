"""ROUGE of summaries, in any script."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar

from lightning_nlp.metrics.text_metric import MeanOfTexts, one_of
from lightning_nlp.metrics.words import ascii_words, words

TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"unicode": words, "rouge_score": ascii_words}


class ROUGE(MeanOfTexts):
    """ROUGE-1, ROUGE-2, ROUGE-L and ROUGE-Lsum (Lin 2004): F-scores, averaged over texts, 0 to 1, without a stemmer.

    Lsum compares sentence by sentence (one a line), by the union of longest common subsequences.

    Args:
        language: see :class:`TextMetric`.
        tokenize: ``rouge_score`` is the tokenizer of that package: ASCII letters and digits, all else is dropped.
            ``unicode`` keeps the letters of all scripts, and makes a word of each character of scripts without spaces.
            ``auto`` is rouge_score for English, and unicode for all others; on ASCII texts both are the same.

    Raises:
        ConfigError: an unknown tokenizer.
    """

    names: ClassVar[tuple[str, ...]] = ("rouge1", "rouge2", "rougeL", "rougeLsum")

    def __init__(self, language: str = "", tokenize: str = "auto", **kwargs: Any) -> None:
        super().__init__(language, **kwargs)
        one_of(tokenize, ("auto", *TOKENIZERS), "tokenize of rouge")
        if tokenize == "auto":
            tokenize = "rouge_score" if self.language == "en" else "unicode"
        self.tokenize = tokenize
        self._words = TOKENIZERS[tokenize]

    @property
    def signature(self) -> str:
        return self.signed("f1", "mean of texts", f"tok:{self.tokenize}", "stem:no", "case:lc", "Lsum:lines")

    def score(self, prediction: str, reference: str) -> tuple[float, ...]:
        found, wanted = self._words(prediction), self._words(reference)
        sides = [
            [self._words(line) for line in text.split("\n") if line] if "\n" in text else [whole]
            for text, whole in ((prediction, found), (reference, wanted))
        ]
        return (
            f_score(common(found, wanted), len(found), len(wanted)),
            f_score(common(pairs(found), pairs(wanted)), max(len(found) - 1, 0), max(len(wanted) - 1, 0)),
            f_score(longest_common(found, wanted), len(found), len(wanted)),
            f_score(union_of_lines(*sides), *(sum(map(len, side)) for side in sides)),
        )


def pairs(parts: list[str]) -> list[tuple[str, str]]:
    """Words with the one after them."""
    return list(itertools.pairwise(parts))


def common(found: Sequence[Hashable], wanted: Sequence[Hashable]) -> int:
    """How many are in both, as often as they are in both."""
    return (Counter(found) & Counter(wanted)).total()


def f_score(both: int, found: int, wanted: int) -> float:
    """Harmonic mean of ``both / found`` and ``both / wanted``; 0 without anything in both."""
    return 2 * both / (found + wanted) if both else 0.0


def longest_common(found: list[str], wanted: list[str]) -> int:
    """Length of the longest common subsequence, 64 and more words at a time (Crochemore et al. 2001)."""
    at: dict[str, int] = {}
    for place, word in enumerate(wanted):
        at[word] = at.get(word, 0) | 1 << place
    everything = (1 << len(wanted)) - 1
    row = everything
    for word in found:
        same = row & at.get(word, 0)
        row = ((row + same) | (row - same)) & everything
    return len(wanted) - row.bit_count()


def common_places(found: list[str], wanted: list[str]) -> set[int]:
    """Places in ``wanted`` of one longest common subsequence: of several, the one rouge-score takes."""
    table = [[0] * (len(found) + 1)]
    for word in wanted:
        above, row = table[-1], [0]
        for place, other in enumerate(found):
            row.append(above[place] + 1 if word == other else max(above[place + 1], row[place]))
        table.append(row)
    places, down, right = set(), len(wanted), len(found)
    while down and right:
        if wanted[down - 1] == found[right - 1]:
            down, right = down - 1, right - 1
            places.add(down)
        elif table[down][right - 1] > table[down - 1][right]:
            right -= 1
        else:
            down -= 1
    return places


def union_of_lines(found: list[list[str]], wanted: list[list[str]]) -> int:
    """Words of the wanted lines that some found line has in order, each as often as it is found (ROUGE 1.5.5)."""
    left, needed = Counter(word for line in found for word in line), Counter(word for line in wanted for word in line)
    hits = 0
    for line in wanted:
        places = set().union(*(common_places(other, line) for other in found))
        for place in sorted(places):
            word = line[place]
            if left[word] > 0 and needed[word] > 0:
                left[word] -= 1
                needed[word] -= 1
                hits += 1
    return hits
