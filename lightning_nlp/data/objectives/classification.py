"""Classification: one class for a text."""

from __future__ import annotations

from typing import Any

from lightning_nlp.data.objectives.example import Example, cut_to, with_ends


def classification(
    ids: Any, label: int, id: str, max_length: int, bos_id: int | None, eos_id: int | None
) -> Example | None:
    """One class number for a text; a longer text keeps its beginning and its end token. None for an empty text."""
    if len(ids) == 0:
        return None
    full = with_ends(ids, bos_id, eos_id)
    cut = cut_to(full, max_length, eos_id)
    return Example(cut, label, id, full_length=len(full), truncated=len(cut) < len(full))
