"""Dialogue: the responses of a conversation, each from the turns before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_nlp.data.objectives.example import IGNORED, Example


@dataclass(frozen=True)
class Turn:
    """What one speaker says.

    Attributes:
        marker: token ids that say who speaks.
        ids: token ids of what is said.
        response: to be learnt: its tokens and its end are predicted.
        pinned: stays when older turns are dropped (an instruction at the beginning).
    """

    marker: np.ndarray
    ids: np.ndarray
    response: bool
    pinned: bool = False

    def __len__(self) -> int:
        return len(self.marker) + len(self.ids) + 1


def windows(turns: Sequence[Turn], history: int | None) -> list[list[Turn]]:
    """The parts of a conversation that are an example each; turns after its last response are in none.

    Args:
        turns: of the conversation.
        history: turns before a response, at most; every response is then an example of its own. None: the whole
            conversation is one, with all of its responses.
    """
    places = [place for place, turn in enumerate(turns) if turn.response]
    if history is None:
        return [list(turns[: places[-1] + 1])] if places else []
    found = []
    for place in places:
        first = max(place - history, 0)
        pinned = [turn for turn in turns[:first] if turn.pinned]
        before = [replace(turn, response=False) for turn in turns[first:place]]
        found.append([*pinned, *before, turns[place]])
    return found


def consecutive(turns: Sequence[Turn], room: int) -> list[list[Turn]]:
    """A conversation in windows that fit into ``room`` tokens: every turn is in one, pinned turns are in all.

    Windows end with a response and are filled from the end of the conversation, so that the oldest has what is left.
    """
    pinned = [turn for turn in turns if turn.pinned]
    rest = [turn for turn in turns if not turn.pinned]
    found: list[list[Turn]] = []
    while (last := max((place for place, turn in enumerate(rest) if turn.response), default=-1)) >= 0:
        rest = rest[: last + 1]
        kept = [turn for turn in fitting([*pinned, *rest], room) if not turn.pinned]
        found.append([*pinned, *kept])
        rest = rest[: len(rest) - len(kept)]
    return found[::-1]


def fitting(turns: Sequence[Turn], room: int) -> list[Turn]:
    """The turns that fit into ``room`` tokens: the oldest are dropped first, pinned ones last, the last one never."""
    kept, used = list(turns), sum(map(len, turns))
    for pinned in (False, True):
        for turn in [turn for turn in kept[:-1] if turn.pinned == pinned]:
            if used > room:
                kept = [other for other in kept if other is not turn]
                used -= len(turn)
    return kept


def dialogue(turns: Sequence[Turn], id: str, max_length: int, bos_id: int | None, end_id: int) -> Example | None:
    """Predict the responses among ``turns``, with the end of each.

    The text is ``[bos]``, and for every turn ``marker ids end``. Of a text longer than ``max_length`` pairs the oldest
    turns are dropped; a response that alone is too long loses its end, and then does not teach where to stop.

    Returns:
        None when no token would have a label.
    """
    before = 0 if bos_id is None else 1
    kept = fitting(turns, max_length + 1 - before)
    tokens = [np.full(before, bos_id or 0, dtype=np.int32)]
    answers = [np.zeros(before, dtype=bool)]
    for turn in kept:
        tokens += [turn.marker, turn.ids, np.array([end_id])]
        answers += [np.zeros(len(turn.marker), dtype=bool), np.full(len(turn.ids) + 1, turn.response)]
    full, answered = np.concatenate(tokens).astype(np.int32)[: max_length + 1], np.concatenate(answers)
    labels = np.where(answered[: len(full)], full, IGNORED)[1:].astype(np.int32)
    if (labels == IGNORED).all():
        return None
    whole = before + sum(map(len, turns)) - 1
    return Example(full[:-1], labels, id, full_length=whole, truncated=len(labels) < whole)


def recent(turns: Sequence[Turn], marker: np.ndarray, history: int | None) -> list[Turn]:
    """The turns that a training example would have before an answer by ``marker``'s speaker."""
    if history is None:
        return list(turns)
    answer = Turn(marker, np.zeros(0, dtype=np.int32), response=True)
    return windows([*turns, answer], history)[-1][:-1]


def said_before(turns: Sequence[Turn], end_id: int, room: int) -> np.ndarray:
    """Token ids ``[n]`` of turns before an answer, n <= ``room``: the oldest are dropped, the last one is cut."""
    said = [np.concatenate((turn.marker, turn.ids, [end_id])) for turn in fitting(turns, room)]
    return np.concatenate(said)[-room:].astype(np.int32)
