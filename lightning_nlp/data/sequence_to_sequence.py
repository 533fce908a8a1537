"""Data of sequence-to-sequence tasks: pairs of texts, batched by the lengths of both."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.collate import Batch, collate_pairs
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import IGNORED, Example, cut_to, sequence_to_sequence, with_ends
from lightning_nlp.data.order.lanes import Row
from lightning_nlp.data.prepared.encoded import token_ids
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class SequenceToSequenceData(TextDataModule):
    """A text and the text to write for it: translation, summaries, answers. One tokenizer serves both.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        source_column: the column that is read.
        target_column: the column that is to be written.
        max_source_length: tokens of a source, its end token included; longer ones are cut, and counted.
        max_target_length: tokens of a target, its end token included; longer ones are cut, and counted.
        decoder_start: name of the token that targets start with (default: <bos>; the padding where there is none).
        lanes: fewer than for packed text, so that each holds enough neighbours of like length.
    """

    fields: ClassVar[tuple[str, ...]] = ("source", "target")
    packed: ClassVar[bool] = False
    task: ClassVar[str] = "seq2seq"
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
        decoder_start: str | None = None,
        lanes: int = 4,
        **kwargs: Any,
    ) -> None:
        for name, value in {"max_source_length": max_source_length, "max_target_length": max_target_length}.items():
            if value < 1:
                raise ConfigError(f"data.{name} must be at least 1, not {value}")
        columns = {"source": source_column, "target": target_column}
        longest = max(max_source_length, max_target_length)
        super().__init__(path, lanes=lanes, columns=columns, max_length=longest, **kwargs)
        self.max_source_length, self.max_target_length = max_source_length, max_target_length
        self.decoder_start = decoder_start
        self.decoder_start_id = -1

    @property
    def lengths(self) -> str:
        return f"{self.max_source_length}+{self.max_target_length}"

    @property
    def longest(self) -> tuple[int, int]:
        return self.max_target_length, self.max_source_length

    def settle(self, run: RunDirectory | None) -> None:
        assert self.tokenizer is not None
        if self.tokenizer.eos_id is None:
            raise ConfigError("the tokenizer has no end token, without which a target would never end")
        self.decoder_start_id = start_id(self.tokenizer, self.decoder_start)

    def facts(self) -> dict[str, Any]:
        start = None if self.decoder_start_id < 0 else self.decoder_start_id
        return {**super().facts(), "decoder_start_id": start}

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
        """Sources, and a decoder that stands at its beginning."""
        assert self.tokenizer is not None
        start, label = (np.array([value], dtype=np.int32) for value in (self.decoder_start_id, IGNORED))
        found: list[Example | None] = []
        for ids, row in zip(self.tokenizer.encode_batch([row["source"] for row in rows]), rows, strict=True):
            full = with_ends(ids, None, self.tokenizer.eos_id)
            cut = cut_to(full, self.max_source_length, self.tokenizer.eos_id)
            example = Example(start, label, row["id"], full_length=len(full) + 1, source=cut)
            example.truncated = len(cut) < len(full)
            found.append(example if len(ids) else None)
        return found

    def collate_examples(self, rows: list[Row], pad_id: int) -> Batch:
        return collate_pairs(rows, pad_id, self.multiple)


def start_id(tokenizer: Tokenizer, name: str | None) -> int:
    """The token a decoder starts from: ``name``, or what the tokenizer has for it.

    T5 and Marian, whose tokenizers have no start token, start from their padding.

    Raises:
        ConfigError: there is no such token, or none at all.
    """
    if name is not None:
        number = tokenizer.backend.token_to_id(name)
        if number is None:
            raise ConfigError(f"data.decoder_start '{name}' is no token of the tokenizer")
        return int(number)
    for number in (tokenizer.bos_id, tokenizer.pad_id):
        if number is not None:
            return number
    raise ConfigError("the tokenizer has neither a start token nor padding: give data.decoder_start")
