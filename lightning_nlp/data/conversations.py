"""Conversations as data sets have them: lists of turns under several names, or two columns; checked, with a reason."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from lightning_nlp.data.objectives.dialogue import Turn
from lightning_nlp.data.sources.bad_rows import BadRowError
from lightning_nlp.data.tokenizers.config import TokenizerConfig, special
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import ConfigError, nearest

ROLES = {"system": "<system>", "user": "<user>", "assistant": "<assistant>"}

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


class Speakers:
    """Who may speak in a conversation, who of them is learnt from, and the tokens that say so.

    Args:
        roles: who may speak, and the marker of each: a token of the tokenizer, or a text.
        respond: roles whose turns are learnt (default: assistant).
        end_of_turn: name of the token that ends a turn (default: the end token).
        history_turns: turns before a response, at most (default: all).

    Raises:
        ConfigError: roles and markers do not fit together, or there would be no history.
    """

    def __init__(
        self,
        roles: dict[str, str] | None,
        respond: list[str] | None,
        end_of_turn: str | None,
        history_turns: int | None,
    ) -> None:
        if history_turns is not None and history_turns < 1:
            raise ConfigError(f"data.history_turns must be at least 1, not {history_turns}")
        self.history_turns = history_turns
        self.roles = dict(ROLES if roles is None else roles)
        self.respond = ["assistant"] if respond is None else list(respond)
        self.end_of_turn = end_of_turn
        self.end_id = -1
        self.markers: dict[str, np.ndarray] = {}
        if not self.respond:
            raise ConfigError("data.respond names no role: nothing would be learnt")
        for role in self.respond:
            if role not in self.roles:
                raise ConfigError(f"data.respond names '{role}', which is none of data.roles ({', '.join(self.roles)})")
        if any(not marker for marker in self.roles.values()) or len(set(self.roles.values())) < len(self.roles):
            raise ConfigError("data.roles needs a marker for every role, and another one each")
        if all(role == "system" for role in self.roles):
            raise ConfigError("data.roles has nobody who speaks but system")

    def with_markers(self, config: TokenizerConfig) -> TokenizerConfig:
        """The settings of a tokenizer that has the markers when it is trained."""
        ends = [] if self.end_of_turn is None else [self.end_of_turn]
        wanted = [*config.extra_tokens, *self.roles.values(), *ends]
        added = tuple(name for name in dict.fromkeys(wanted) if name not in special(config))
        return dataclasses.replace(config, extra_tokens=added)

    def settle(self, tokenizer: Tokenizer, max_length: int) -> None:
        """Find the tokens.

        Raises:
            ConfigError: a turn would never end, or ``max_length`` has no room for anything.
        """
        number = tokenizer.eos_id
        if self.end_of_turn is not None:
            number = tokenizer.backend.token_to_id(self.end_of_turn)
        if number is None:
            what = "the tokenizer has no end token" if self.end_of_turn is None else f"'{self.end_of_turn}' is no token"
            raise ConfigError(f"data.end_of_turn: {what}: name one that the tokenizer has")
        self.end_id = int(number)
        for role, name in self.roles.items():
            known = tokenizer.backend.token_to_id(name)
            self.markers[role] = np.array([known] if known is not None else tokenizer.encode(name), dtype=np.int32)
        if max(map(len, self.markers.values())) + 2 > max_length:
            raise ConfigError(f"data.max_length {max_length} has no room for a role marker and a response")

    @property
    def responder(self) -> str:
        """Who answers a question of nobody in particular."""
        return self.respond[0]

    @property
    def asker(self) -> str:
        """Who asks where only a text is given."""
        return next((role for role in self.roles if role not in (*self.respond, "system")), self.respond[-1])

    def facts(self) -> dict[str, Any]:
        """What a model must know to be asked as it was trained; nothing before :meth:`settle`."""
        if not self.markers:
            return {}
        after = [self.end_id, *self.markers[self.responder].tolist()]
        system = self.markers["system"].tolist() if "system" in self.markers else []
        around = {"before": self.markers[self.asker].tolist(), "after": after, "end_id": self.end_id}
        return {"prompt": {**around, "system": system, "history_turns": self.history_turns}}

    def turns(self, row: dict[str, Any]) -> list[tuple[str, str]]:
        """``(role, text)`` of the turns of a row with ``messages``, or with ``prompt`` and ``response``.

        Raises:
            BadRowError: see :func:`turns_of`.
        """
        if "prompt" not in row:
            return turns_of(row["messages"], self.roles)
        pair = [{"role": self.asker, "content": row["prompt"]}]
        if row.get("response") is not None:
            pair.append({"role": self.responder, "content": row["response"]})
        return turns_of(pair, self.roles)

    def with_response(self, row: dict[str, Any]) -> list[tuple[str, str]]:
        """The turns of a row that has something to learn from.

        Raises:
            BadRowError: it has not.
        """
        turns = self.turns(row)
        if not any(role in self.respond for role, _ in turns):
            raise bad_conversation(f"no turn of {' or '.join(self.respond)}: nothing to learn from")
        return turns

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """The texts of a row for training a tokenizer.

        Raises:
            BadRowError: it has nothing to learn from.
        """
        return [text for _, text in self.with_response(row)]

    def encoded(self, tokenizer: Tokenizer, conversations: list[list[tuple[str, str]]]) -> list[list[Turn]]:
        """Conversations as tokens."""
        ids = iter(tokenizer.encode_batch([text for turns in conversations for _, text in turns]))
        return [
            [
                Turn(self.markers[role], next(ids), role in self.respond, pinned=role == "system" and not number)
                for number, (role, _) in enumerate(turns)
            ]
            for turns in conversations
        ]

    def to_answer(self, row: dict[str, Any]) -> tuple[list[tuple[str, str]], np.ndarray, str | None]:
        """What was said before an answer, the marker of who gives it, and the answer where the row ends with one."""
        said, reference = self.turns(row), None
        speaker = next((role for role in self.respond if role != said[-1][0]), self.responder)
        if said[-1][0] in self.respond and len(said) > 1:
            (speaker, reference), said = said[-1], said[:-1]
        return said, self.markers[speaker], reference


def columns_of(messages: str, prompt: str | None, response: str | None) -> tuple[dict[str, str], str, str | None]:
    """Columns by our names, the field that asks, and the one that answers.

    Raises:
        ConfigError: one of two columns is missing.
    """
    if (prompt is None) != (response is None):
        raise ConfigError("data.prompt_column and data.response_column belong together: give both or neither")
    if prompt is None or response is None:
        return {"messages": messages}, "messages", None
    return {"prompt": prompt, "response": response}, "prompt", "response"
