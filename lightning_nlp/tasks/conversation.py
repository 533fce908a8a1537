"""A conversation with a model: what was said so far, as the model reads it before its next answer."""

from __future__ import annotations

import numpy as np

from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.data.objectives.dialogue import Turn, recent, said_before
from lightning_nlp.errors import ConfigError
from lightning_nlp.tasks.continuing import ContinuingHead
from lightning_nlp.tasks.sequence_to_sequence import SequenceToSequenceHead


class Conversation:
    """Turns of somebody who asks and of the model, between the markers it was trained with.

    A decoder writes its answers behind what was said: old turns are dropped early, so that answers have room.

    Args:
        head: of a model that was trained on conversations.
        backbone: of the same model.
        answer_length: tokens an answer of a decoder has room for, but no more than half of what the model reads.
        system: an instruction that stands at the beginning, and stays when older turns are dropped.

    Raises:
        ConfigError: the model was not trained on conversations, or knows no instructions.
    """

    def __init__(
        self,
        head: ContinuingHead | SequenceToSequenceHead,
        backbone: Transformer,
        answer_length: int,
        system: str | None = None,
    ) -> None:
        assert head.tokenizer is not None
        self.head, self.tokenizer, self.prompt = head, head.tokenizer, head.prompt
        if not self.prompt.converses:
            raise ConfigError("the model was not trained on conversations: it knows no markers of speakers")
        if system is not None and not self.prompt.system:
            raise ConfigError("the model was trained without instructions: it knows no marker of system")
        length = backbone.config.max_length
        self.end, self.marker = self.prompt.after[0], np.array(self.prompt.after[1:], dtype=np.int32)
        self.most = self.room = length - len(head.framed([])) - len(self.marker)
        if isinstance(head, ContinuingHead):
            self.most -= 1
            self.room -= min(answer_length, length // 2)
        self.instruction = [] if system is None else [self._turn(self.prompt.system, tokens(head, system), pinned=True)]
        self.turns: list[Turn] = []

    def _turn(self, marker: tuple[int, ...], ids: list[int], *, response: bool = False, pinned: bool = False) -> Turn:
        return Turn(np.array(marker, dtype=np.int32), np.array(ids, dtype=np.int32), response, pinned)

    def ask(self, text: str) -> list[int]:
        """Token ids for the model to read when ``text`` is said next; nothing is noted before :meth:`answered`.

        Raises:
            ConfigError: an empty text, or one that alone leaves no room for an answer.
        """
        turn = self._turn(self.prompt.before, tokens(self.head, text))
        if not len(turn.ids):
            raise ConfigError("the message is empty: give some text")
        if len(turn) > self.most:
            most = self.most - (len(turn) - len(turn.ids))
            raise ConfigError(f"the message has {len(turn.ids)} tokens, the model takes {most}: say it shorter")
        turns = recent([*self.instruction, *self.turns, turn], self.marker, self.prompt.history_turns)
        said = said_before(turns, self.end, max(self.room, len(turn)))
        return self.head.framed([*said.tolist(), *self.marker.tolist()])

    def answered(self, text: str, answer: list[int]) -> None:
        """Note what was said, and what the model answered, in tokens."""
        special = set(self.tokenizer.special_ids)
        said = [token for token in answer if token not in special]
        self.turns.append(self._turn(self.prompt.before, tokens(self.head, text)))
        self.turns.append(self._turn(self.prompt.after[1:], said, response=True))

    def forget(self) -> None:
        """Begin anew; an instruction stays."""
        self.turns = []


def tokens(head: ContinuingHead | SequenceToSequenceHead, text: str) -> list[int]:
    """Token ids of a text."""
    assert head.tokenizer is not None
    return head.tokenizer.encode(text)
