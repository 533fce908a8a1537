"""Data of dialogues: conversations with role markers, of which the responses are learnt."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.conversations import bad_conversation, turns_of
from lightning_nlp.data.objectives import IGNORED, Example, in_turn
from lightning_nlp.data.objectives.dialogue import Turn, consecutive, dialogue, fitting, windows
from lightning_nlp.data.tokenizers.config import TokenizerConfig, special
from lightning_nlp.data.tokenizers.token_bytes import TokenBytes
from lightning_nlp.data.whole_rows import WholeRowsData
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory

ROLES = {"system": "<system>", "user": "<user>", "assistant": "<assistant>"}


class DialogueData(WholeRowsData):
    """Conversations for a decoder: ``<user> text <eos> <assistant> text <eos> ...``; the loss is on responses alone.

    The end of a response has a label, so that a model learns to stop. A system turn at the beginning stays when older
    turns are dropped. A conversation without a response, with an empty turn or with an unknown role is a bad row.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        messages_column: the column with the list of turns, each with ``role`` (or ``speaker``, ``from``) and
            ``content`` (or ``text``, ``value``).
        prompt_column: instead of it, the column with what is asked ...
        response_column: ... and the one with the answer.
        roles: who may speak, and the marker of each: a token of the tokenizer (one that is trained has it), or a text.
        respond: roles whose turns are learnt (default: assistant).
        end_of_turn: name of the token that ends a turn (default: the end token).
        history_turns: turns before a response, at most; every response is then an example of its own. By default a
            conversation is one example, with all its responses.
        max_length: tokens in a row; of a longer conversation the oldest turns are dropped, and counted.
        split_long: make further examples of the turns that would be dropped, without what they followed from.
        tokenizer: which tokenizer to train, always with the markers, or to load.
    """

    asked: ClassVar[str] = "messages"

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        messages_column: str = "messages",
        prompt_column: str | None = None,
        response_column: str | None = None,
        roles: dict[str, str] | None = None,
        respond: list[str] | None = None,
        end_of_turn: str | None = None,
        history_turns: int | None = None,
        split_long: bool = False,
        tokenizer: TokenizerConfig = TokenizerConfig(),  # noqa: B008 - frozen
        **kwargs: Any,
    ) -> None:
        self.roles = dict(ROLES if roles is None else roles)
        self.respond = ["assistant"] if respond is None else list(respond)
        self._check_roles()
        if history_turns is not None and history_turns < 1:
            raise ConfigError(f"data.history_turns must be at least 1, not {history_turns}")
        if split_long and history_turns is not None:
            raise ConfigError("data.split_long is for whole conversations: data.history_turns cuts them already")
        columns = {"messages": messages_column}
        if prompt_column is not None and response_column is not None:
            columns = {"prompt": prompt_column, "response": response_column}
            self.asked, self.answer = "prompt", "response"  # type: ignore[misc]  # other fields than in the class
        elif prompt_column is not None or response_column is not None:
            raise ConfigError("data.prompt_column and data.response_column belong together: give both or neither")
        wanted = [*tokenizer.extra_tokens, *self.roles.values(), *([] if end_of_turn is None else [end_of_turn])]
        added = tuple(name for name in dict.fromkeys(wanted) if name not in special(tokenizer))
        tokenizer = dataclasses.replace(tokenizer, extra_tokens=added)
        super().__init__(path, columns=columns, tokenizer=tokenizer, **kwargs)
        self.end_of_turn, self.history_turns = end_of_turn, history_turns
        self.split_long = split_long
        self.several = split_long or history_turns is not None  # type: ignore[misc]  # a choice here
        self.end_id = -1
        self.markers: dict[str, np.ndarray] = {}
        self._bytes: TokenBytes | None = None

    def _check_roles(self) -> None:
        if not self.respond:
            raise ConfigError("data.respond names no role: nothing would be learnt")
        for role in self.respond:
            if role not in self.roles:
                raise ConfigError(f"data.respond names '{role}', which is none of data.roles ({', '.join(self.roles)})")
        if any(not marker for marker in self.roles.values()) or len(set(self.roles.values())) < len(self.roles):
            raise ConfigError("data.roles needs a marker for every role, and another one each")
        if all(role == "system" for role in self.roles):
            raise ConfigError("data.roles has nobody who speaks but system")

    def settle(self, run: RunDirectory | None) -> None:
        super().settle(run)
        assert self.tokenizer is not None
        number = self.tokenizer.eos_id
        if self.end_of_turn is not None:
            number = self.tokenizer.backend.token_to_id(self.end_of_turn)
        if number is None:
            what = "the tokenizer has no end token" if self.end_of_turn is None else f"'{self.end_of_turn}' is no token"
            raise ConfigError(f"data.end_of_turn: {what}: name one that the tokenizer has")
        self.end_id = int(number)
        self.markers = {role: self._marker(name) for role, name in self.roles.items()}
        if max(map(len, self.markers.values())) + 2 > self.max_length:
            raise ConfigError(f"data.max_length {self.max_length} has no room for a role marker and a response")

    def _marker(self, name: str) -> np.ndarray:
        """A token, or the tokens of a text."""
        assert self.tokenizer is not None
        number = self.tokenizer.backend.token_to_id(name)
        return np.array([number] if number is not None else self.tokenizer.encode(name), dtype=np.int32)

    @property
    def responder(self) -> str:
        """Who answers a question of nobody in particular."""
        return self.respond[0]

    @property
    def asker(self) -> str:
        """Who asks where only a text is given."""
        return next((role for role in self.roles if role not in (*self.respond, "system")), self.respond[-1])

    def facts(self) -> dict[str, Any]:
        if not self.markers:
            return super().facts()
        around = {
            "before": self.markers[self.asker].tolist(),
            "after": [self.end_id, *self.markers[self.responder].tolist()],
            "end_id": self.end_id,
        }
        return {**super().facts(), "prompt": around}

    def conversation(self, row: dict[str, Any]) -> list[tuple[str, str]]:
        """``(role, text)`` of a row's turns.

        Raises:
            BadRowError: see :func:`~lightning_nlp.data.conversations.turns_of`.
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
        turns = self.conversation(row)
        if not any(role in self.respond for role, _ in turns):
            raise bad_conversation(f"no turn of {' or '.join(self.respond)}: nothing to learn from")
        return turns

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        return [text for _, text in self.with_response(row)]

    def encoded(self, conversations: list[list[tuple[str, str]]]) -> list[list[Turn]]:
        """Conversations as tokens."""
        assert self.tokenizer is not None
        ids = iter(self.tokenizer.encode_batch([text for turns in conversations for _, text in turns]))
        return [
            [
                Turn(
                    self.markers[role],
                    next(ids),
                    role in self.respond,
                    pinned=role == "system" and not number,
                )
                for number, (role, text) in enumerate(turns)
            ]
            for turns in conversations
        ]

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        conversations = self.encoded([self.with_response(row) for row in rows])
        return [self._examples(turns, row) for turns, row in zip(conversations, rows, strict=True)]

    def _spelled(self, ids: np.ndarray) -> int:
        assert self.tokenizer is not None
        if self._bytes is None:
            self._bytes = TokenBytes(self.tokenizer)
        return self._bytes(ids)

    def _examples(self, turns: list[Turn], row: dict[str, Any]) -> Example | None:
        assert self.tokenizer is not None
        examples = []
        room = self.max_length + 1 - (self.tokenizer.bos_id is not None)
        found = consecutive(turns, room) if self.split_long else windows(turns, self.history_turns)
        for number, window in enumerate(found):
            name = f"{row['id']}@{number}" if number else row["id"]
            example = dialogue(window, name, self.max_length, self.tokenizer.bos_id, self.end_id)
            if example is not None:
                example.bytes = self._spelled(example.labels[example.labels != IGNORED])
                examples.append(example)
        if not examples:
            raise bad_conversation("no token of a response is left: raise data.max_length")
        return in_turn(examples)

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """Conversations to answer. One that ends with a response asks for that response, which is shown beside it."""
        return [self._to_answer(row) for row in rows]

    def _to_answer(self, row: dict[str, Any]) -> Example | None:
        text = row.get(self.asked)
        if isinstance(text, str) and not text.strip():
            return None
        said, reference = self.conversation(row), None
        speaker = next((role for role in self.respond if role != said[-1][0]), self.responder)
        if said[-1][0] in self.respond and len(said) > 1:
            (speaker, reference), said = said[-1], said[:-1]
        (turns,) = self.encoded([said])
        example = self._prompt(turns, self.markers[speaker], row["id"])
        example.reference = reference
        return example

    def _prompt(self, turns: list[Turn], marker: np.ndarray, id: str) -> Example:
        """``[bos] turns marker``, cut as in training so that something can be answered."""
        assert self.tokenizer is not None
        asked = (
            turns if self.history_turns is None else windows([*turns, answer_to(marker)], self.history_turns)[-1][:-1]
        )
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        room = self.max_length - 1 - len(start) - len(marker)
        kept = fitting(asked, room)
        said = [np.concatenate((turn.marker, turn.ids, [self.end_id])) for turn in kept]
        tokens = np.concatenate((start, np.concatenate(said)[-room:], marker)).astype(np.int32)
        whole = len(start) + sum(map(len, asked)) + len(marker)
        labels = np.full(len(tokens), IGNORED, dtype=np.int32)
        return Example(tokens, labels, id, full_length=whole, truncated=len(tokens) < whole)


def answer_to(marker: np.ndarray) -> Turn:
    """A response that has not been given yet."""
    return Turn(marker, np.zeros(0, dtype=np.int32), True)
