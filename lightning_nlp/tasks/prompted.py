"""Answers of a decoder: the question is a prompt, and the answer what follows it."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning_nlp.errors import ConfigError
from lightning_nlp.tasks.answers import AnsweringHead, last_answer
from lightning_nlp.tasks.continuing import ContinuingHead


class PromptedHead(AnsweringHead, ContinuingHead):
    """Next-token scores of answers, and answers. ``labels [B, T]``: the tokens after ``tokens``; -100 in prompts.

    Of a row with several answers (a conversation), the last one is decoded, after the true ones before it.
    """

    arrangements: ClassVar[tuple[str, ...]] = ("decoder",)

    def resolve(self, facts: dict[str, Any]) -> None:
        if facts and (facts.get("prompt") is None or facts.get("decoder_start_id") is not None):
            raise ConfigError(
                "a decoder alone answers prompts: give PrefixPairsData or DialogueData, or "
                "backbone.arrangement encoder_decoder"
            )
        super().resolve(facts)

    def question(self, batch: dict[str, Any], row: int) -> list[int]:
        tokens, real = batch["tokens"][row], batch["segments"][row] > 0
        first, answer = last_answer(batch["labels"][row])
        return (tokens[: first + 1] if answer else tokens[real]).tolist()  # type: ignore[no-any-return]
