"""A conversation with a model: what was said so far, as the model reads it before its next answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lightning_nlp.data.objectives.dialogue import Turn, to_answer
from lightning_nlp.errors import ConfigError
from lightning_nlp.tasks.prompting import PromptConfig

if TYPE_CHECKING:
    from lightning_nlp.data.tokenizers.tokenizer import Tokenizer


class Conversation:
    """Turns of somebody who asks and of the model, between the markers it was trained with.

    Args:
        prompt: of a model that was trained on conversations.
        tokenizer: of the model.
        max_length: tokens the model reads and writes at most.
        answer_length: room that is left for an answer by dropping old turns, as far as the last one allows it.
        system: an instruction that stands at the beginning, and stays when older turns are dropped.

    Raises:
        ConfigError: the model was not trained on conversations, or knows no instructions.
    """

    def __init__(
        self, prompt: PromptConfig, tokenizer: Tokenizer, max_length: int, answer_length: int, system: str | None = None
    ) -> None:
        if not prompt.converses:
            raise ConfigError("the model was not trained on conversations: it knows no markers of speakers")
        if system is not None and not prompt.system:
            raise ConfigError("the model was trained without instructions: it knows no marker of system")
        self.prompt, self.tokenizer = prompt, tokenizer
        self.max_length, self.answer_length = max_length, min(answer_length, max_length // 2)
        self.instruction = [] if system is None else [self._turn(prompt.system, tokenizer.encode(system), pinned=True)]
        self.turns: list[Turn] = []

    def _turn(self, marker: tuple[int, ...], ids: list[int], *, response: bool = False, pinned: bool = False) -> Turn:
        return Turn(np.array(marker, dtype=np.int32), np.array(ids, dtype=np.int32), response, pinned)

    def ask(self, text: str) -> list[int]:
        """Token ids to answer when ``text`` is said next; nothing is noted before :meth:`answered`.

        Raises:
            ConfigError: an empty text, or one that alone leaves no room for an answer.
        """
        ids = self.tokenizer.encode(text)
        if not ids:
            raise ConfigError("the message is empty: give some text")
        turn, marker = self._turn(self.prompt.before, ids), np.array(self.prompt.after[1:], dtype=np.int32)
        around = len(marker) + (self.tokenizer.bos_id is not None)
        if around + len(turn) > self.max_length - 1:
            most = self.max_length - 1 - around - (len(turn) - len(ids))
            raise ConfigError(f"the message has {len(ids)} tokens, the model takes {most}: say it shorter")
        room = max(self.max_length - self.answer_length, around + len(turn))
        end = self.prompt.after[0]
        history = self.prompt.history_turns
        turns = [*self.instruction, *self.turns, turn]
        return to_answer(turns, marker, room, self.tokenizer.bos_id, end, history)[0].tolist()  # type: ignore[no-any-return]

    def answered(self, text: str, answer: list[int]) -> None:
        """Note what was said, and what the model answered, in tokens."""
        special = set(self.tokenizer.special_ids)
        said = [token for token in answer if token not in special]
        self.turns.append(self._turn(self.prompt.before, self.tokenizer.encode(text)))
        self.turns.append(self._turn(self.prompt.after[1:], said, response=True))

    def forget(self) -> None:
        """Begin anew; an instruction stays."""
        self.turns = []
