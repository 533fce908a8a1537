"""What data of denoising objectives have in common: a text is read damaged, and an encoder-decoder mends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.collate import Batch, collate_pairs
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import IGNORED, Example, cut_to, in_turn, with_ends
from lightning_nlp.data.objectives.pieces import piece_id, pieces
from lightning_nlp.data.order.lanes import Row
from lightning_nlp.data.sequence_to_sequence import start_id
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class DamagedTextData(TextDataModule):
    """Documents in pieces that fit the encoder, each damaged in its own way, differently at every visit.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        text_column: the column that holds the text.
        decoder_start: name of the token that targets start with (default: <bos>; the padding where there is none).
        lanes: fewer than for packed text, so that each holds enough neighbours of like length.
    """

    packed: ClassVar[bool] = False
    several: ClassVar[bool] = True
    task: ClassVar[str] = "seq2seq"

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        text_column: str = "text",
        decoder_start: str | None = None,
        lanes: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, lanes=lanes, columns={"text": text_column}, **kwargs)
        self.decoder_start = decoder_start
        self.decoder_start_id = -1

    @property
    def piece_length(self) -> int:
        """Tokens of a document that one example is made of, at most."""
        raise NotImplementedError  # each objective says

    @property
    def longest(self) -> tuple[int, int]:
        """Tokens of the longest target, and of the longest source."""
        raise NotImplementedError  # each objective says

    @property
    def lengths(self) -> str:
        target, source = self.longest
        return f"{source}+{target}"

    def encode_damaged(self, text: str) -> list[int]:
        """Ids of a text to mend, in which names of special tokens say where something is missing."""
        raise NotImplementedError  # each objective says

    def settle(self, run: RunDirectory | None) -> None:
        assert self.tokenizer is not None
        if self.tokenizer.eos_id is None:
            raise ConfigError("the tokenizer has no end token, without which a target would never end")
        self.decoder_start_id = start_id(self.tokenizer, self.decoder_start)

    def facts(self) -> dict[str, Any]:
        start = None if self.decoder_start_id < 0 else self.decoder_start_id
        return {**super().facts(), "decoder_start_id": start}

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
        assert self.tokenizer is not None
        start, label = (np.array([value], dtype=np.int32) for value in (self.decoder_start_id, IGNORED))
        found: list[Example | None] = []
        for row in rows:
            ids = self.encode_damaged(row["text"])
            full = with_ends(ids, None, self.tokenizer.eos_id)
            cut = cut_to(full, self.longest[1], self.tokenizer.eos_id)
            example = Example(start, label, row["id"], full_length=len(full) + 1, source=cut)
            example.truncated = len(cut) < len(full)
            found.append(example if ids else None)
        return found

    def collate_examples(self, rows: list[Row], pad_id: int) -> Batch:
        return collate_pairs(rows, pad_id, self.multiple)


def first_part(example: Example) -> Example:
    """The first example of a document alone; what it leaves out is counted as cut."""
    example.full_length = sum(part.full_length for part in example.parts)
    example.truncated, example.more = bool(example.more), []
    return example
