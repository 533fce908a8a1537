"""What a tokenizer is trained on: the texts of documents, as far as they can be used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from lightning_nlp.data.order.joined import rows_in_turn
from lightning_nlp.data.sources.bad_rows import Skipped, fault_of, usable
from lightning_nlp.data.sources.source import Source
from lightning_nlp.errors import DataError


def training_texts(source: Source, texts_of: Callable[[dict[str, Any]], list[str]]) -> Iterator[list[str]]:
    """The texts of every row of ``source`` in turn; ``texts_of`` a row gives them.

    Raises:
        DataError: no row has a text; says what became of them.
    """
    found, skipped = False, Skipped(source)
    for row in usable(rows_in_turn(source), source, skipped):
        try:
            texts = texts_of(row)
        except DataError as error:  # whether it stops the run is decided where it is used
            skipped.note(row, fault_of(error))
            continue
        found = found or any(texts)
        yield texts
    if not found:
        raise DataError(f"there is no text to train a tokenizer on{skipped}")
