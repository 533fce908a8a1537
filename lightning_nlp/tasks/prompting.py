"""What stands around a prompt, so that a model is asked as it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class PromptConfig:
    """How a text becomes a prompt; data that trains on more than plain text says so, and checkpoints keep it."""

    before: tuple[int, ...] = ()
    """Token ids before the text: the marker of who asks."""
    after: tuple[int, ...] = ()
    """Token ids after it: the end of the question, the marker of who answers."""
    bidirectional: bool = False
    """All of a prompt sees all of it (prefix language models)."""
    end_id: int | None = None
    """What ends an answer, where it is not the tokenizer's end token."""

    system: tuple[int, ...] = ()
    """Token ids before an instruction at the beginning of a conversation."""
    history_turns: int | None = None
    """Turns before an answer, at most; None: as many as fit."""

    def __post_init__(self) -> None:
        for name in ("before", "after", "system"):  # checkpoints and data hold lists
            object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def answers(self) -> bool:
        """What follows is an answer to the text, not its continuation."""
        return bool(self.after)

    @property
    def converses(self) -> bool:
        """Questions and answers in turn are a conversation, in which speakers have markers."""
        return bool(self.before) and self.after[:1] == (self.end_id,) and not self.bidirectional

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
