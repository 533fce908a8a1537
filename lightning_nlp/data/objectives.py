"""Document to example: pure functions that know nothing of packing, batches or models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

IGNORED = -100


@dataclass(slots=True)
class Example:
    """What one document gives to learn from.

    Attributes:
        tokens: int32 ``[n]``.
        labels: int32 ``[n]`` (-100 = no loss), or one class number.
        id: of the document.
        bytes: utf-8 bytes the labels spell; 0 where that means nothing.
        source_length: tokens before anything was cut.
        truncated: tokens were cut off.
        text: the document itself, where somebody wants to see it again (predictions).
    """

    tokens: np.ndarray
    labels: Any
    id: str
    bytes: int = 0
    source_length: int = 0
    truncated: bool = False
    text: str = ""


def with_ends(ids: Any, bos_id: int | None, eos_id: int | None) -> np.ndarray:
    """``[bos] ids [eos]``, each where there is one."""
    parts = [[bos_id]] if bos_id is not None else []
    parts += [ids] + ([[eos_id]] if eos_id is not None else [])
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def causal_lm(ids: Any, id: str, bytes: int, bos_id: int | None, eos_id: int | None) -> Example | None:
    """Predict each token from those before it.

    Returns pairs (input, label) rather than tokens, so that packing never makes a label cross into another document.
    None when there is nothing to predict.
    """
    full = with_ends(ids, bos_id, eos_id)
    if len(ids) == 0 or len(full) < 2:
        return None
    return Example(full[:-1], full[1:], id, bytes, source_length=len(full) - 1)


def classification(
    ids: Any, label: int, id: str, max_length: int, bos_id: int | None, eos_id: int | None
) -> Example | None:
    """One class number for a text; a longer text keeps its beginning and its end token. None for an empty text."""
    if len(ids) == 0:
        return None
    full = with_ends(ids, bos_id, eos_id)
    cut = full
    if len(full) > max_length:
        cut = full[:max_length].copy()
        if eos_id is not None:
            cut[-1] = eos_id
    return Example(cut, label, id, source_length=len(full), truncated=len(cut) < len(full))
