"""What became of the documents of a run, in words and in numbers."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_nlp.data.order.documents import COUNTS, SKIPPED, skipped_of
from lightning_nlp.data.sources.bad_rows import FILTERED, KINDS, bad_of

NAMES = (*COUNTS, *(f"{SKIPPED}{kind}" for kind in (FILTERED, *KINDS)))
"""Everything that lanes count, in one order on all ranks."""


def in_words(counts: Mapping[str, int], lengths: str) -> str:
    """One line about documents read, cut, dropped and skipped; ``lengths`` is what rows are cut to."""
    skipped = skipped_of(counts)
    text = f"{counts['documents']} documents read"
    if counts["split"]:
        text += f", {counts['split']} split over rows"
    if counts["truncated"]:
        text += f", {counts['truncated']} cut to {lengths} tokens ({counts['tokens_cut']} tokens lost)"
    if counts["dropped"]:
        text += f", {counts['dropped']} dropped (nothing to learn from)"
    if bad := bad_of(skipped):
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(skipped.items()) if number and kind != FILTERED)
        text += f", {bad} bad rows skipped ({kinds})"
    if skipped.get(FILTERED):
        text += f", {skipped[FILTERED]} filtered out"
    return text


def in_numbers(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts as metrics: ``data/documents`` and ``data/bad_rows`` always, ``data/bad_rows/KIND`` and others above 0."""
    skipped = skipped_of(counts)
    found = {f"data/{name}": counts[name] for name in COUNTS if counts[name] or name == "documents"}
    found["data/bad_rows"] = bad_of(skipped)
    found |= {f"data/bad_rows/{kind}": number for kind, number in skipped.items() if number and kind != FILTERED}
    return found | ({"data/filtered": skipped[FILTERED]} if skipped.get(FILTERED) else {})
