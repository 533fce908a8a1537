"""Causal language modelling: the next token from those before it."""

from __future__ import annotations

from typing import Any

from lightning_nlp.data.objectives.example import Example, with_ends


def causal_lm(ids: Any, id: str, bytes: int, bos_id: int | None, eos_id: int | None) -> Example | None:
    """Predict each token from those before it.

    Returns pairs (input, label) rather than tokens, so that packing never makes a label cross into another document.
    None when there is nothing to predict.
    """
    full = with_ends(ids, bos_id, eos_id)
    if len(ids) == 0 or len(full) < 2:
        return None
    return Example(full[:-1], full[1:], id, bytes, full_length=len(full) - 1)
