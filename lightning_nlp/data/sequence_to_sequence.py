"""Data of sequence-to-sequence tasks: pairs of texts, batched by the lengths of both."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning_nlp.data.encoder_decoder import EncoderDecoderData, check_lengths
from lightning_nlp.data.objectives import Example, sequence_to_sequence
from lightning_nlp.data.prepared.encoded import token_ids


class SequenceToSequenceData(EncoderDecoderData):
    """A text and the text to write for it: translation, summaries, answers. One tokenizer serves both.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        source_column: the column that is read.
        target_column: the column that is to be written.
        max_source_length: tokens of a source, its end token included; longer ones are cut, and counted.
        max_target_length: tokens of a target, its end token included; longer ones are cut, and counted.
    """

    fields: ClassVar[tuple[str, ...]] = ("source", "target")
    tokenised: ClassVar[tuple[str, ...]] = ("source", "target")
    asked: ClassVar[str] = "source"
    answer: ClassVar[str | None] = "target"

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        source_column: str = "source",
        target_column: str = "target",
        max_source_length: int = 128,
        max_target_length: int = 128,
        **kwargs: Any,
    ) -> None:
        longest = check_lengths(max_source_length=max_source_length, max_target_length=max_target_length)
        columns = {"source": source_column, "target": target_column}
        super().__init__(path, columns=columns, max_length=longest, **kwargs)
        self.max_source_length, self.max_target_length = max_source_length, max_target_length

    @property
    def longest(self) -> tuple[int, int]:
        return self.max_target_length, self.max_source_length

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        return [row["source"], row["target"]]

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        tokenizer, ends = self.tokenizer, (self.decoder_start_id, self.tokenizer.eos_id)
        lengths = self.max_source_length, self.max_target_length
        sources, targets = (token_ids(tokenizer, [row[field] for row in rows]) for field in self.fields)
        return [
            sequence_to_sequence(source, target, row["id"], *lengths, *ends)
            for source, target, row in zip(sources, targets, rows, strict=True)
        ]

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """Sources, to be answered."""
        assert self.tokenizer is not None
        sources = token_ids(self.tokenizer, [row["source"] for row in rows])
        return [self.to_answer(ids, row["id"]) for ids, row in zip(sources, rows, strict=True)]
