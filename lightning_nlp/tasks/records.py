"""What predictions say of a written text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_nlp.decoding.beam import Hypothesis


def written_record(spell: Callable[[list[int]], str], found: list[Hypothesis]) -> dict[str, Any]:
    """The best text with its score; with ``generation.n_best`` above 1, all of them.

    A score is what texts are ranked by: the log-probability in nats, divided as ``generation.length_norm`` says.
    """
    texts = [{"text": spell(each.tokens), "score": each.score} for each in found]
    record = {"prediction": texts[0]["text"], "score": texts[0]["score"]}
    return record | ({"n_best": texts} if len(texts) > 1 else {})
