"""Document to example: pure functions that know nothing of packing, batches or models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lightning_nlp.data.permutation import share

IGNORED = -100


@dataclass(slots=True)
class Example:
    """What one document gives to learn from.

    Attributes:
        tokens: int32 ``[n]``.
        labels: int32 ``[n]`` (-100 = no loss), or one class number.
        id: of the document.
        bytes: utf-8 bytes the labels spell; 0 where that means nothing.
        full_length: tokens before anything was cut, those of the source too.
        truncated: tokens were cut off.
        source: int32 ``[s]``, what an encoder reads while a decoder reads ``tokens``.
        place: number of the row in its split (evaluation).
        text: the document itself, where somebody wants to see it again (predictions).
        reference: the right answer, where it is known (predictions).
    """

    tokens: np.ndarray
    labels: Any
    id: str
    bytes: int = 0
    full_length: int = 0
    truncated: bool = False
    source: np.ndarray | None = None
    place: int = -1
    text: str = ""
    reference: str | None = None

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens of the row and of its source."""
        return len(self.tokens), 0 if self.source is None else len(self.source)

    @property
    def bulk(self) -> tuple[int, int]:
        """What to sort by: the longer side, then both. Sorted by one side first, the other is padded more."""
        return max(self.lengths), sum(self.lengths)


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
    return Example(full[:-1], full[1:], id, bytes, full_length=len(full) - 1)


def classification(
    ids: Any, label: int, id: str, max_length: int, bos_id: int | None, eos_id: int | None
) -> Example | None:
    """One class number for a text; a longer text keeps its beginning and its end token. None for an empty text."""
    if len(ids) == 0:
        return None
    full = with_ends(ids, bos_id, eos_id)
    cut = cut_to(full, max_length, eos_id)
    return Example(cut, label, id, full_length=len(full), truncated=len(cut) < len(full))


def cut_to(full: np.ndarray, max_length: int, eos_id: int | None) -> np.ndarray:
    """The first ``max_length`` tokens, the last of them replaced by the end token where there is one."""
    if len(full) <= max_length:
        return full
    cut = full[:max_length].copy()
    if eos_id is not None:
        cut[-1] = eos_id
    return cut


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


def sequence_to_sequence(
    source: Any,
    target: Any,
    id: str,
    max_source_length: int,
    max_target_length: int,
    start_id: int,
    eos_id: int | None,
) -> Example | None:
    """Write ``target`` having read ``source``.

    The encoder reads ``source [eos]``; the decoder reads ``start target`` and its labels are ``target [eos]``. A longer
    source keeps its beginning and its end token. A cut target has no end token: the text does not end there.

    Returns:
        None when one of the two is empty.
    """
    if len(source) == 0 or len(target) == 0:
        return None
    read, written = with_ends(source, None, eos_id), with_ends(target, start_id, eos_id)
    cut = cut_to(read, max_source_length, eos_id)
    labels = written[1 : max_target_length + 1]
    full, kept = len(read) + len(written) - 1, len(cut) + len(labels)
    return Example(written[: len(labels)], labels, id, full_length=full, truncated=kept < full, source=cut)
