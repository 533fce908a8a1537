"""Data of dialogues: conversations with role markers, of which the responses are learnt."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.conversations import Speakers, bad_conversation, columns_of
from lightning_nlp.data.objectives import IGNORED, Example, in_turn
from lightning_nlp.data.objectives.dialogue import Turn, consecutive, dialogue, recent, said_before, windows
from lightning_nlp.data.tokenizers.config import TokenizerConfig
from lightning_nlp.data.tokenizers.token_bytes import TokenBytes
from lightning_nlp.data.whole_rows import WholeRowsData
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


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
        self.speakers = Speakers(roles, respond, end_of_turn, history_turns)
        if split_long and history_turns is not None:
            raise ConfigError("data.split_long is for whole conversations: data.history_turns cuts them already")
        columns, asked, answer = columns_of(messages_column, prompt_column, response_column)
        self.asked, self.answer = asked, answer  # type: ignore[misc]  # other fields than in the class
        super().__init__(path, columns=columns, tokenizer=self.speakers.with_markers(tokenizer), **kwargs)
        self.split_long = split_long
        self.several = split_long or history_turns is not None  # type: ignore[misc]  # a choice here
        self._bytes: TokenBytes | None = None

    def settle(self, run: RunDirectory | None) -> None:
        super().settle(run)
        assert self.tokenizer is not None
        self.speakers.settle(self.tokenizer, self.max_length)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **self.speakers.facts()}

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        return self.speakers.texts_of(row)

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        conversations = self.speakers.encoded(self.tokenizer, [self.speakers.with_response(row) for row in rows])
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
        found = consecutive(turns, room) if self.split_long else windows(turns, self.speakers.history_turns)
        for number, window in enumerate(found):
            name = f"{row['id']}@{number}" if number else row["id"]
            example = dialogue(window, name, self.max_length, self.tokenizer.bos_id, self.speakers.end_id)
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
        assert self.tokenizer is not None
        said, marker, reference = self.speakers.to_answer(row)
        (turns,) = self.speakers.encoded(self.tokenizer, [said])
        example = self._prompt(turns, marker, row["id"])
        example.reference = reference
        return example

    def _prompt(self, turns: list[Turn], marker: np.ndarray, id: str) -> Example:
        """``[bos] turns marker``, cut as in training so that something can be answered."""
        assert self.tokenizer is not None
        asked = recent(turns, marker, self.speakers.history_turns)
        start = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        room = self.max_length - 1 - len(start) - len(marker)
        tokens = np.concatenate((start, said_before(asked, self.speakers.end_id, room), marker)).astype(np.int32)
        whole = len(start) + sum(map(len, asked)) + len(marker)
        labels = np.full(len(tokens), IGNORED, dtype=np.int32)
        return Example(tokens, labels, id, full_length=whole, truncated=len(tokens) < whole)
