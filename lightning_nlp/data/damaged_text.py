"""What data of denoising objectives have in common: a text is read damaged, and an encoder-decoder mends it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.encoder_decoder import EncoderDecoderData
from lightning_nlp.data.objectives import Example, in_turn
from lightning_nlp.data.objectives.pieces import piece_id, pieces


class DamagedTextData(EncoderDecoderData):
    """Documents in pieces that fit the encoder, each damaged in its own way, differently at every visit.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        text_column: the column that holds the text.
    """

    several: ClassVar[bool] = True

    def __init__(self, path: str | list[str] | None = None, *, text_column: str = "text", **kwargs: Any) -> None:
        super().__init__(path, columns={"text": text_column}, **kwargs)

    @property
    @abstractmethod
    def piece_length(self) -> int:
        """Tokens of a document that one example is made of, at most."""

    @abstractmethod
    def encode_damaged(self, text: str) -> list[int]:
        """Ids of a text to mend, in which names of special tokens say where something is missing."""

    def in_pieces(
        self, ids: np.ndarray, row: dict[str, Any], damage: Callable[[np.ndarray, str, tuple[int, ...], int], Any]
    ) -> Example | None:
        """The examples that ``damage(ids, id, key, offset)`` makes of the pieces of a document."""
        found = (
            damage(piece, piece_id(row["id"], offset), (*row["key"], number), offset)
            for number, (offset, piece) in enumerate(pieces(ids, self.piece_length))
        )
        return in_turn([example for example in found if example is not None])

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """Texts that are damaged already; of the data's own splits, what evaluation reads, in its first piece."""
        if self.predict_path is None:
            return [None if example is None else first_part(example) for example in self.prepare(rows)]
        return [self.to_answer(self.encode_damaged(row["text"]), row["id"]) for row in rows]


def first_part(example: Example) -> Example:
    """The first example of a document alone; what it leaves out is counted as cut."""
    example.full_length = sum(part.full_length for part in example.parts)
    example.truncated, example.more = bool(example.more), []
    return example
