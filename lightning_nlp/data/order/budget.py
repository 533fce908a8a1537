"""Batches of about equally many tokens instead of equally many rows."""

from __future__ import annotations

from typing import Any

from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.documents import Documents
from lightning_nlp.data.order.lanes import Row, WindowLane, single

MULTIPLE = 8
"""What collating rounds lengths up to."""
GROUPS = 64
"""Groups of a window: more leave less padding, and take longer to read again after a stop."""


def rounded(length: int, multiple: int = MULTIPLE) -> int:
    return -(-length // multiple) * multiple


def cost(rows: int, longest: tuple[int, int]) -> int:
    """Positions of ``rows`` rows padded to the ``longest`` row and source, padding included."""
    return rows * (rounded(longest[0]) + rounded(longest[1]))


def cut_at(lengths: list[tuple[int, int]], budget: int) -> list[int]:
    """Ends of the fewest consecutive groups that cost at most ``budget`` each; a row that costs more stands alone."""
    ends: list[int] = []
    start, longest = 0, (0, 0)
    for place, (row, source) in enumerate(lengths):
        grown = max(longest[0], row), max(longest[1], source)
        if place > start and cost(place + 1 - start, grown) > budget:
            ends.append(place)
            start, grown = place, (row, source)
        longest = grown
    return [*ends, len(lengths)] if lengths else []


def even_cut(lengths: list[tuple[int, int]], budget: int) -> list[int]:
    """As :func:`cut_at`, with as many groups, and the most expensive of them as cheap as can be."""
    groups, low, high = len(cut_at(lengths, budget)), 1, budget
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(cut_at(lengths, middle)) <= groups else (middle + 1, high)
    ends = cut_at(lengths, low)
    while len(ends) < groups:  # a cheaper most expensive one may leave fewer: the largest is cut in two
        starts = [0, *ends[:-1]]
        widest = max(range(len(ends)), key=lambda place: ends[place] - starts[place])
        ends.insert(widest, (starts[widest] + ends[widest]) // 2)
    return ends


class BudgetLane(WindowLane[list[Row]]):
    """Groups of examples of similar length; a group, padded, has at most ``budget`` positions.

    A window is as many examples as make ``groups`` groups, sorted by length. All lanes have as many, and draw the same
    order of them, so that they emit like lengths at the same time.

    Args:
        documents: the examples.
        budget: positions of a group: rows times the longest row, and the same for sources.
        groups: of a window.
        seed: of the order of the groups.
    """

    def __init__(self, documents: Documents, *, budget: int, groups: int = GROUPS, seed: int) -> None:
        self.budget, self.groups = budget, groups
        self._left: list[tuple[Example, dict[str, Any]]] = []
        self._next_start: dict[str, Any] = {}
        super().__init__(documents, seed=seed)

    def make(self) -> list[list[Row]]:
        """Read until there is too much, then use as many examples as fit; those left begin the next window."""
        read, size = self._left, sum(sum(example.lengths) for example, _ in self._left)
        if read:
            self._start = self._next_start
        while size <= self.groups * self.budget:
            example = self.documents.next()
            read.append((example, self.documents.state()))
            size += sum(example.lengths)
        count = self._fitting([example for example, _ in read])
        used, self._left = read[:count], read[count:]
        self._next_start = used[-1][1]
        by_length = sorted((example for example, _ in used), key=lambda example: example.bulk)
        ends = even_cut([example.lengths for example in by_length], self.budget)
        groups = [
            [single(example) for example in by_length[begin:end]] for begin, end in zip([0, *ends], ends, strict=False)
        ]
        return [groups[number] for number in self.order(len(groups))]

    def _fitting(self, examples: list[Example]) -> int:
        """How many of the first examples make so many groups."""
        low, high = 1, len(examples)
        while low < high:
            middle = (low + high + 1) // 2
            lengths = [example.lengths for example in sorted(examples[:middle], key=lambda example: example.bulk)]
            low, high = (middle, high) if len(cut_at(lengths, self.budget)) <= self.groups else (low, middle - 1)
        return low

    def restore(self, state: dict[str, Any]) -> None:
        self._left = []
        super().restore(state)
