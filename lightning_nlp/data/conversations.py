"""Conversations as data sets have them: lists of turns under several names, or two columns; checked, with a reason."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_nlp.data.sources.bad_rows import BadRowError
from lightning_nlp.errors import nearest

SPEAKERS = ("role", "speaker", "from")
TEXTS = ("content", "text", "value")
"""Names under which a turn holds who speaks and what is said."""


def turns_of(messages: Any, roles: Iterable[str]) -> list[tuple[str, str]]:
    """``(role, text)`` of every turn.

    Args:
        messages: a list of turns, or a text, which the first role but "system" says.
        roles: the known ones.

    Raises:
        BadRowError: no list, a turn without speaker or text, an unknown role, an empty turn; names the turn.
    """
    known = list(roles)
    if isinstance(messages, str):
        messages = [{"role": next(role for role in known if role != "system"), "content": messages}]
    if not isinstance(messages, (list, tuple)) or not messages:
        kind = "is empty" if isinstance(messages, (list, tuple)) else f"is {type(messages).__name__}, no list of turns"
        raise bad_conversation(f"the conversation {kind}")
    return [_turn(turn, number, known) for number, turn in enumerate(messages, 1)]


def _turn(turn: Any, number: int, known: list[str]) -> tuple[str, str]:
    if not isinstance(turn, dict):
        raise bad_conversation(f"turn {number} is {type(turn).__name__}, not a role and a content")
    found = []
    for what, names in (("role", SPEAKERS), ("content", TEXTS)):
        value = next((turn[name] for name in names if turn.get(name) is not None), None)
        if not isinstance(value, str):
            kind = f"no {what}" if value is None else f"a {what} that is {type(value).__name__}, not text"
            raise bad_conversation(f"turn {number} has {kind} (known names: {', '.join(names)})")
        found.append(value)
    role, text = found
    if role not in known:
        hint = f"{nearest(role, known)} (known: {', '.join(known)}; more in data.roles)"
        raise bad_conversation(f"turn {number} has the unknown role '{role}'{hint}")
    if not text.strip():
        raise bad_conversation(f"turn {number} ({role}) is empty")
    return role, text


def bad_conversation(reason: str) -> BadRowError:
    """What to raise for a row that holds no usable conversation; who catches it knows file and row."""
    return BadRowError("bad_conversation", reason)
