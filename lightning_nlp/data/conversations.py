"""Conversations as data sets have them: lists of turns under several names, or two columns; checked, with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_nlp.errors import DataError, nearest

SPEAKERS = ("role", "speaker", "from")
TEXTS = ("content", "text", "value")
"""Names under which a turn holds who speaks and what is said."""


def turns_of(messages: Any, roles: Iterable[str], where: str) -> list[tuple[str, str]]:
    """``(role, text)`` of every turn.

    Args:
        messages: a list of turns, or a text, which the first role but "system" says.
        roles: the known ones.
        where: the row, for messages.

    Raises:
        DataError: no list, a turn without speaker or text, an unknown role, an empty turn; names row and turn.
    """
    known = list(roles)
    if isinstance(messages, str):
        messages = [{"role": next(role for role in known if role != "system"), "content": messages}]
    if not isinstance(messages, (list, tuple)) or not messages:
        kind = "is empty" if isinstance(messages, (list, tuple)) else f"is {type(messages).__name__}, no list of turns"
        raise DataError(f"{where}: the conversation {kind}")
    return [_turn(turn, number, known, where) for number, turn in enumerate(messages, 1)]


def _turn(turn: Any, number: int, known: list[str], where: str) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise DataError(f"{where}: turn {number} is {type(turn).__name__}, not a role and a content")
    found = []
    for what, names in (("role", SPEAKERS), ("content", TEXTS)):
        value = next((turn[name] for name in names if turn.get(name) is not None), None)
        if not isinstance(value, str):
            kind = f"no {what}" if value is None else f"a {what} that is {type(value).__name__}, not text"
            raise DataError(f"{where}: turn {number} has {kind} (known names: {', '.join(names)})")
        found.append(value)
    role, text = found
    if role not in known:
        hint = f"{nearest(role, known)} (known: {', '.join(known)}; more in data.roles)"
        raise DataError(f"{where}: turn {number} has the unknown role '{role}'{hint}")
    if not text.strip():
        raise DataError(f"{where}: turn {number} ({role}) is empty")
    return role, text
