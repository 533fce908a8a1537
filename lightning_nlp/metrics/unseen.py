"""Each example counts once: padding and repetitions of what was there do not."""

from __future__ import annotations


class Unseen:
    """Tells example ids that were not there before. A sampler puts every id on one rank, so they need not travel."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, real: list[bool], ids: list[str]) -> list[int]:
        """Rows that count: real ones with a new id."""
        keep = []
        for row, (counts, identity) in enumerate(zip(real, ids, strict=True)):
            if counts and identity not in self._seen:
                self._seen.add(identity)
                keep.append(row)
        return keep

    def forget(self) -> None:
        """Begin anew."""
        self._seen.clear()
