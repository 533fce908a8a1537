"""Windows over a long text, such that every token is predicted once."""

from __future__ import annotations


def rolling_windows(pairs: int, length: int, stride: int | None = None) -> list[tuple[int, int, int]]:
    """``(start, first, stop)`` of windows over (input, label) pairs: all are read, those from ``first`` on are scored.

    The first window scores all it reads; each later one scores the next ``stride`` pairs (fewer at the end) and reads
    as many before them as fit. With ``stride`` equal to ``length`` (the default) this is the rolling log-likelihood of
    EleutherAI's lm-evaluation-harness; a smaller one gives every token more context, at a higher price.

    Args:
        pairs: to be scored, in all.
        length: pairs in a window.
        stride: pairs that a window scores, from the second on.
    """
    found, done = [], 0
    while done < pairs:
        stop = min(done + (length if not done else stride or length), pairs)
        found.append((max(stop - length, 0), done, stop))
        done = stop
    return found
