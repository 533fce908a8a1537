"""Sequence to sequence: a text to write for a text that was read."""

from __future__ import annotations

from typing import Any

from lightning_nlp.data.objectives.example import Example, cut_to, with_ends


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
