"""What all data for encoder-decoders has in common: sources that are read, targets that are written."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.collate import Batch, collate_pairs
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import IGNORED, Example, cut_to, with_ends
from lightning_nlp.data.order.lanes import Row
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class EncoderDecoderData(TextDataModule):
    """Examples with a source each, batched by the lengths of both.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        decoder_start: name of the token that targets start with (default: <bos>; the padding where there is none).
        lanes: fewer than for packed text, so that each holds enough neighbours of like length.
    """

    packed: ClassVar[bool] = False
    task: ClassVar[str] = "seq2seq"

    def __init__(
        self, path: str | list[str] | None = None, *, decoder_start: str | None = None, lanes: int = 4, **kwargs: Any
    ) -> None:
        super().__init__(path, lanes=lanes, **kwargs)
        self.decoder_start = decoder_start
        self.decoder_start_id = -1

    @property
    @abstractmethod
    def longest(self) -> tuple[int, int]:
        """Tokens of the longest target, and of the longest source."""

    @property
    def lengths(self) -> str:
        target, source = self.longest
        return f"{source}+{target}"

    def settle(self, run: RunDirectory | None) -> None:
        super().settle(run)
        assert self.tokenizer is not None
        if self.tokenizer.eos_id is None:
            raise ConfigError("the tokenizer has no end token, without which a target would never end")
        self.decoder_start_id = start_id(self.tokenizer, self.decoder_start)

    def facts(self) -> dict[str, Any]:
        start = None if self.decoder_start_id < 0 else self.decoder_start_id
        return {**super().facts(), "decoder_start_id": start}

    def to_answer(self, ids: Any, id: str) -> Example | None:
        """A source, cut and ended as in training, and a decoder that stands at its beginning; None for no tokens."""
        assert self.tokenizer is not None
        if len(ids) == 0:
            return None
        start, label = (np.array([value], dtype=np.int32) for value in (self.decoder_start_id, IGNORED))
        full = with_ends(ids, None, self.tokenizer.eos_id)
        cut = cut_to(full, self.longest[1], self.tokenizer.eos_id)
        example = Example(start, label, id, full_length=len(full) + 1, source=cut)
        example.truncated = len(cut) < len(full)
        return example

    def collate_examples(self, rows: list[Row], pad_id: int) -> Batch:
        return collate_pairs(rows, pad_id, self.multiple)


def check_lengths(**lengths: int) -> int:
    """The longest of them.

    Raises:
        ConfigError: one is below 1; names the key.
    """
    for name, value in lengths.items():
        if value < 1:
            raise ConfigError(f"data.{name} must be at least 1, not {value}")
    return max(lengths.values())


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
