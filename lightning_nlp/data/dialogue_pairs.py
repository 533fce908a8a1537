"""Data of dialogues for encoder-decoders: what was said so far is read, the response is written."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.conversations import Speakers, columns_of
from lightning_nlp.data.encoder_decoder import EncoderDecoderData, check_lengths
from lightning_nlp.data.objectives import Example, in_turn, sequence_to_sequence
from lightning_nlp.data.objectives.dialogue import Turn, recent, said_before, windows
from lightning_nlp.data.tokenizers.config import TokenizerConfig
from lightning_nlp.run.directory import RunDirectory


class DialoguePairsData(EncoderDecoderData):
    """Conversations for an encoder-decoder; every response is an example.

    The encoder reads ``<user> text <eos> <assistant> text <eos> <user> text <eos> <assistant> <eos>``, the decoder
    writes the text of the response. Of a history longer than the encoder the oldest turns are dropped, and counted; a
    system turn at the beginning stays longest.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        messages_column: the column with the list of turns, each with ``role`` (or ``speaker``, ``from``) and
            ``content`` (or ``text``, ``value``).
        prompt_column: instead of it, the column with what is asked ...
        response_column: ... and the one with the answer.
        roles: who may speak, and the marker of each: a token of the tokenizer (one that is trained has it), or a text.
        respond: roles whose turns are learnt (default: assistant).
        end_of_turn: name of the token that ends a turn (default: the end token).
        history_turns: turns before a response, at most (default: all that fit).
        max_source_length: tokens of a history, all markers included.
        max_target_length: tokens of a response, its end token included; longer ones are cut, and counted.
        tokenizer: which tokenizer to train, always with the markers, or to load.
    """

    asked: ClassVar[str] = "messages"
    several: ClassVar[bool] = True

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
        max_source_length: int = 128,
        max_target_length: int = 128,
        tokenizer: TokenizerConfig = TokenizerConfig(),  # noqa: B008 - frozen
        **kwargs: Any,
    ) -> None:
        self.speakers = Speakers(roles, respond, end_of_turn, history_turns)
        longest = check_lengths(max_source_length=max_source_length, max_target_length=max_target_length)
        columns, asked, answer = columns_of(messages_column, prompt_column, response_column)
        self.asked, self.answer = asked, answer  # type: ignore[misc]  # other fields than in the class
        tokenizer = self.speakers.with_markers(tokenizer)
        super().__init__(path, columns=columns, tokenizer=tokenizer, max_length=longest, **kwargs)
        self.max_source_length, self.max_target_length = max_source_length, max_target_length

    @property
    def longest(self) -> tuple[int, int]:
        return self.max_target_length, self.max_source_length

    def settle(self, run: RunDirectory | None) -> None:
        super().settle(run)
        assert self.tokenizer is not None
        self.speakers.settle(self.tokenizer, self.max_source_length)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), **self.speakers.facts()}

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        return self.speakers.texts_of(row)

    def history(self, turns: list[Turn], marker: np.ndarray) -> tuple[np.ndarray, int]:
        """What is read before an answer by ``marker``'s speaker, and tokens that were dropped."""
        asked = recent(turns, marker, self.speakers.history_turns)
        read = np.zeros(0, dtype=np.int32)
        if asked:
            read = said_before(asked, self.speakers.end_id, self.max_source_length - 1 - len(marker))
        return np.concatenate((read, marker)), sum(map(len, asked)) - len(read)

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        conversations = self.speakers.encoded(self.tokenizer, [self.speakers.with_response(row) for row in rows])
        return [self._examples(turns, row["id"]) for turns, row in zip(conversations, rows, strict=True)]

    def _examples(self, turns: list[Turn], id: str) -> Example | None:
        assert self.tokenizer is not None
        lengths, ends = (self.max_source_length, self.max_target_length), (self.decoder_start_id, self.tokenizer.eos_id)
        found = []
        for number, (*before, response) in enumerate(windows(turns, self.speakers.history_turns or len(turns))):
            source, lost = self.history(before, response.marker)
            name = f"{id}@{number}" if number else id
            example = sequence_to_sequence(source, response.ids, name, *lengths, *ends)
            if example is not None:
                example.full_length, example.truncated = example.full_length + lost, example.truncated or lost > 0
                found.append(example)
        return in_turn(found)

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """Conversations to answer. One that ends with a response asks for that response, which is shown beside it."""
        return [self._to_answer(row) for row in rows]

    def _to_answer(self, row: dict[str, Any]) -> Example | None:
        assert self.tokenizer is not None
        text = row.get(self.asked)
        if isinstance(text, str) and not text.strip():
            return None
        said, marker, reference = self.speakers.to_answer(row)
        (turns,) = self.speakers.encoded(self.tokenizer, [said])
        source, lost = self.history(turns, marker)
        example = self.to_answer(source, row["id"])
        if example is not None:
            example.full_length, example.truncated = example.full_length + lost, example.truncated or lost > 0
            example.reference = reference
        return example
