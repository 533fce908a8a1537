"""Unigram language model of pieces: the vocabulary under which words are likeliest (Kudo 2018).

From many candidate pieces, expectation-maximisation over all segmentations of the words gives probabilities, and the
pieces whose loss costs least likelihood go, a quarter at a time (the schedule of SentencePiece, Kudo and Richardson
2018). Words of one length are handled at once, and nothing depends on the order of a hash table or on threads: the same
words give the same pieces and, to six digits, the same scores.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

LONGEST_PIECE = 16
"""Letters of a piece, at most."""
LONGEST_PART = 64
"""Letters of a word looked at together; longer ones are cut before training."""
WORDS = 200_000
"""Different words looked at, the most frequent ones."""
CANDIDATES = 10
"""Candidates a piece of the final vocabulary."""
ROUNDS = 2
"""Of expectation-maximisation before pieces are taken away."""
KEPT = 0.75
"""Share of the pieces that stay when some are taken away."""
RARE = 0.5
"""Expected occurrences below which a piece goes at once."""
NEVER = -1e9
"""Log-probability of what cannot be."""


@dataclass
class Group:
    """Words of one length.

    Attributes:
        spans: int32 ``[words, length, L]``, number of the piece of l + 1 letters that ends with letter e; the number of
            pieces where there is none. L is the longest piece there can be.
        counts: ``[words]``, how often each occurs.
    """

    spans: np.ndarray
    counts: np.ndarray

    def narrow(self, keep: np.ndarray, size: int) -> Group:
        """The same for the pieces ``keep`` of ``size``, numbered anew."""
        numbers = np.full(size + 1, len(keep), dtype=np.int32)
        numbers[keep] = np.arange(len(keep))
        return Group(numbers[self.spans], self.counts)


def learn_pieces(
    words: dict[str, int], letters: list[str], size: int, min_frequency: int = 0
) -> list[tuple[str, float]]:
    """Pieces and their log-probabilities, the likeliest first; every letter is one, used or not.

    Args:
        words: and how often each occurs.
        letters: of which words are made.
        size: pieces wanted; fewer where the words do not give as many.
        min_frequency: occurrences that a piece of several letters must have.
    """
    parts = cut(words)
    names, scores = candidates(parts, letters, CANDIDATES * size, max(min_frequency, 2))
    texts, pieces = grouped(parts, names), grouped(dict.fromkeys(names, 1), names)
    required = len(letters)
    while True:
        scores = estimate(texts, scores, required)
        if len(names) <= size:
            break
        alive = np.count_nonzero(scores > NEVER / 2)
        cost = losses(texts, pieces, scores)
        cost[:required] = np.inf
        useful = np.count_nonzero(cost > -np.inf)
        order = np.lexsort((np.arange(len(names)), -cost))
        keep = np.sort(order[: max(size, min(int(KEPT * alive), useful))])
        texts, pieces = ([group.narrow(keep, len(names)) for group in groups] for groups in (texts, pieces))
        names, scores = [names[place] for place in keep], scores[keep]
    scores = np.maximum(scores, scores[scores > NEVER / 2].min())
    found = sorted(zip(scores.round(6).tolist(), names, strict=True), key=lambda item: (-item[0], item[1]))
    return [(name, score) for score, name in found]


def estimate(texts: list[Group], scores: np.ndarray, required: int) -> np.ndarray:
    """Log-probabilities after some rounds of expectation-maximisation; of rare pieces, but for letters, ``NEVER``."""
    for _ in range(ROUNDS):
        expected = sum((expected_counts(group, scores) for group in texts), np.zeros(len(scores)))
        expected[:required] = np.maximum(expected[:required], RARE)  # a letter stays, however rare
        # Digamma instead of the logarithm is a prior for few pieces (variational Bayes, as in SentencePiece).
        found = digamma(np.maximum(expected, RARE)) - digamma(expected.sum())
        scores = np.where(expected >= RARE, found, NEVER)
    return scores


def cut(words: dict[str, int]) -> dict[str, int]:
    """The most frequent words, long ones in parts."""
    found: dict[str, int] = defaultdict(int)
    for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0]))[:WORDS]:
        for start in range(0, len(word), LONGEST_PART):
            found[word[start : start + LONGEST_PART]] += count
    return dict(found)


def candidates(words: dict[str, int], letters: list[str], size: int, least: int) -> tuple[list[str], np.ndarray]:
    """Letters, then the parts of words that cover most text (occurrences times letters); and log-probabilities."""
    found: Counter[str] = Counter()
    single: Counter[str] = Counter()
    for word, count in words.items():
        for start in range(len(word)):
            single[word[start]] += count
            for stop in range(start + 2, min(start + LONGEST_PIECE, len(word)) + 1):
                found[word[start:stop]] += count
    frequent = [(-count * len(part), part) for part, count in found.items() if count >= least]
    parts = sorted(frequent)[:size]
    covered = np.array([max(single[letter], RARE) for letter in letters] + [-cover for cover, _ in parts], dtype=float)
    return [*letters, *(part for _, part in parts)], np.log(covered / covered.sum())


def grouped(words: dict[str, int], names: list[str]) -> list[Group]:
    """Words by length, with the pieces that every span could be."""
    numbers = {name: number for number, name in enumerate(names)}
    by_length: dict[int, list[str]] = defaultdict(list)
    for word in words:
        by_length[len(word)].append(word)
    groups = []
    for length, members in sorted(by_length.items()):
        longest = min(length, LONGEST_PIECE)
        spans = np.full((len(members), length, longest), len(names), dtype=np.int32)
        for end in range(length):
            for size in range(min(end + 1, longest)):
                spans[:, end, size] = [numbers.get(word[end - size : end + 1], len(names)) for word in members]
        groups.append(Group(spans, np.array([words[word] for word in members], dtype=float)))
    return groups


def forward(group: Group, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of spans ``[words, length, L]``; of all ways to the first letters ``[words, length + 1]``."""
    table = np.append(scores, NEVER)[group.spans]
    count, length, longest = table.shape
    ways = np.full((count, length + 1), NEVER)
    ways[:, 0] = 0.0
    for end in range(length):
        reach = min(end + 1, longest)
        before = ways[:, end - reach + 1 : end + 1][:, ::-1]  # one letter back, two, ...
        ways[:, end + 1] = log_sum(before + table[:, end, :reach])
    return table, ways


def expected_counts(group: Group, scores: np.ndarray) -> np.ndarray:
    """How often each piece is expected, over all segmentations of the words: ``[pieces]``."""
    table, ways = forward(group, scores)
    count, length, longest = table.shape
    rest = np.full((count, length + 1), NEVER)
    rest[:, length] = 0.0
    for start in reversed(range(length)):
        reach = min(length - start, longest)
        sizes = np.arange(reach)
        rest[:, start] = log_sum(table[:, start + sizes, sizes] + rest[:, start + 1 : start + 1 + reach])
    found = np.zeros(len(scores) + 1)
    for end in range(length):
        reach = min(end + 1, longest)
        before = ways[:, end - reach + 1 : end + 1][:, ::-1]
        share = np.exp(before + table[:, end, :reach] + rest[:, end + 1, None] - ways[:, length, None])
        share *= group.counts[:, None]
        found += np.bincount(group.spans[:, end, :reach].ravel(), weights=share.ravel(), minlength=len(found))
    return found[:-1]


def best(group: Group, scores: np.ndarray, *, whole: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest segmentation of each word: log-probability ``[words]``, and its pieces ``[words, length]``.

    Pieces come from the end of the word on, filled up with the number of pieces.

    Args:
        whole: False: a word is no piece of itself.
    """
    table = np.append(scores, NEVER)[group.spans]
    count, length, longest = table.shape
    if not whole and length <= longest:
        table[:, length - 1, length - 1] = NEVER
    ways, size_of = np.zeros((count, length + 1)), np.zeros((count, length + 1), dtype=np.int64)
    for end in range(length):
        reach = min(end + 1, longest)
        options = ways[:, end - reach + 1 : end + 1][:, ::-1] + table[:, end, :reach]
        size_of[:, end + 1] = options.argmax(1)
        ways[:, end + 1] = options.max(1)
    pieces, at, rows = np.full((count, length), len(scores)), np.full(count, length), np.arange(count)
    for place in range(length):
        going = at > 0
        size = size_of[rows, at]
        pieces[going, place] = group.spans[rows[going], at[going] - 1, size[going]]
        at = np.where(going, at - size - 1, 0)
    return ways[:, length], pieces


def losses(texts: list[Group], names: list[Group], scores: np.ndarray) -> np.ndarray:
    """What the log-likelihood of the words loses without each piece; -inf where a piece is never the best choice.

    As SentencePiece reckons it: every use of the piece in likeliest segmentations becomes its own second-best one.

    Args:
        texts: the words.
        names: all pieces, as words.
        scores: log-probabilities of the pieces.
    """
    used = np.zeros(len(scores) + 1)
    for group in texts:
        pieces = best(group, scores)[1]
        counts = np.broadcast_to(group.counts[:, None], pieces.shape)
        used += np.bincount(pieces.ravel(), weights=counts.ravel(), minlength=len(used))
    used[-1] = 0.0
    total = used.sum()
    cost = np.full(len(scores) + 1, -np.inf)
    for group in names:
        length = group.spans.shape[1]
        mine = group.spans[:, length - 1, length - 1]
        second, pieces = best(group, scores, whole=False)
        times = used[mine]
        worth = (times > 0) & (np.append(scores, NEVER)[mine] > second)
        times, pieces, mine = times[worth], pieces[worth], mine[worth]
        real = pieces < len(scores)
        after = total + times * (real.sum(1) - 1)
        with_these = np.log((used[pieces] + times[:, None]) / after[:, None])
        cost[mine] = times * (np.log(times / total) - np.where(real, with_these, 0.0).sum(1))
    return cost[:-1]


def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of log-gamma for positive numbers, to ten digits (recurrence, then the asymptotic series)."""
    below = sum(1 / (x + step) for step in range(8))
    y = 1 / (x + 8) ** 2
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y / 240)))
    return np.log(x + 8) - 0.5 / (x + 8) - series - below


def log_sum(values: np.ndarray) -> np.ndarray:
    """``log(sum(exp(values)))`` over the last axis."""
    most = values.max(-1)
    return most + np.log(np.exp(values - most[..., None]).sum(-1))
