"""Masked language modelling: hidden tokens from all the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_nlp.data.objectives.example import IGNORED, Example, with_ends
from lightning_nlp.data.permutation import share


@dataclass(frozen=True)
class Masking:
    """How masked language modelling hides tokens (Devlin et al. 2019).

    Attributes:
        mask_id: the token that stands for a hidden one.
        special: ids that are never chosen.
        ordinary: ids that random tokens are drawn from.
        share: of the tokens (or words) of a document that are chosen.
        random: share of the chosen tokens that become a random one.
        kept: share of the chosen tokens that stay as they are; the rest becomes ``mask_id``.
    """

    mask_id: int
    special: np.ndarray
    ordinary: np.ndarray
    share: float = 0.15
    random: float = 0.1
    kept: float = 0.1


def masked_lm(
    ids: Any,
    id: str,
    key: tuple[int, ...],
    masking: Masking,
    bos_id: int | None,
    eos_id: int | None,
    words: np.ndarray | None = None,
) -> Example | None:
    """Tell hidden tokens from all the others of the document (BERT).

    What is hidden is a function of ``key`` and the document, so it does not matter who prepares it, or how often.

    Args:
        key: integers that no other visit of any document has.
        words: number of the word each token belongs to: whole words are then chosen.

    Returns:
        ``[bos] ids [eos]`` with labels at chosen tokens alone; None when no token can be chosen.
    """
    draws = share(np.arange(3 * len(ids) + 1), key)
    tokens, labels = hide(np.asarray(ids, dtype=np.int32), draws, masking, words)
    if (labels == IGNORED).all():
        return None
    full = with_ends(tokens, bos_id, eos_id)
    padded = np.full(len(full), IGNORED, dtype=np.int32)
    start = int(bos_id is not None)
    padded[start : start + len(labels)] = labels
    return Example(full, padded, id, full_length=len(full))


def hide(
    ids: np.ndarray, draws: np.ndarray, masking: Masking, words: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens and labels (-100 where nothing was chosen) of ``ids [n]``.

    Of ``u`` tokens, or words, ``share * u`` are chosen, rounded up or down at random so that the share is met on
    average, but at least one. What happens to a chosen token is decided for each by itself, also within a word.

    Args:
        draws: uniform in [0, 1), ``[3 n + 1]``: an order of the units, fates, random tokens, and the rounding.
    """
    count = len(ids)
    order, fates, randoms = draws[: 3 * count].reshape(3, count)
    labels, tokens = np.full(count, IGNORED, dtype=np.int32), ids.copy()
    candidates = np.flatnonzero(np.isin(ids, masking.special, invert=True))
    if not len(candidates):
        return tokens, labels
    units = candidates if words is None else words[candidates]
    names, of_unit = np.unique(units, return_inverse=True)
    wanted = max(int(masking.share * len(names) + draws[-1]), 1)
    picked = np.zeros(len(names), dtype=bool)
    picked[np.argsort(order[: len(names)], kind="stable")[:wanted]] = True
    chosen = candidates[picked[of_unit]]
    labels[chosen] = ids[chosen]
    fate = fates[chosen]
    drawn = masking.ordinary[(randoms[chosen] * len(masking.ordinary)).astype(np.int64)]
    kept = masking.random + masking.kept
    tokens[chosen] = np.where(fate < masking.random, drawn, np.where(fate < kept, ids[chosen], masking.mask_id))
    return tokens, labels
