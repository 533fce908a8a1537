"""Data of prefix language models: a text of which the beginning is given, or a source that is given whole."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.damaged_text import first_part
from lightning_nlp.data.objectives import IGNORED, Example, cut_pair, in_turn, prefix_lm, split_point, with_ends
from lightning_nlp.data.objectives.pieces import LEAST, piece_id, pieces
from lightning_nlp.data.prepared.encoded import token_ids
from lightning_nlp.data.tokenizers.token_bytes import TokenBytes
from lightning_nlp.data.whole_rows import WholeRowsData
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class PrefixData(WholeRowsData):
    """What both kinds of data have in common; prompts are read in both directions, as prefixes are in training.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
    """

    def __init__(self, path: str | list[str] | None = None, **kwargs: Any) -> None:
        super().__init__(path, **kwargs)
        if self.max_length < 4:
            raise ConfigError(f"data.max_length must be at least 4, not {self.max_length}")
        self._bytes: TokenBytes | None = None

    def bytes_of(self, ids: np.ndarray) -> int:
        """Utf-8 bytes that tokens spell."""
        assert self.tokenizer is not None
        if self._bytes is None:
            self._bytes = TokenBytes(self.tokenizer)
        return self._bytes(ids)

    def prompt(self, ids: np.ndarray, id: str) -> Example:
        """``[bos] ids``, all of it given, cut from the left."""
        assert self.tokenizer is not None
        full = with_ends(ids, self.tokenizer.bos_id, None)
        tokens = full[-(self.max_length - 1) :]
        labels = np.full(len(tokens), IGNORED, dtype=np.int32)
        seen = {"prefix_mask": np.ones(len(tokens), dtype=bool)}
        truncated = len(tokens) < len(full)
        return Example(tokens, labels, id, full_length=len(full), truncated=truncated, extras=seen)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "prompt": {"bidirectional": True}}


class PrefixLMData(PrefixData):
    """Documents, in pieces that fit a row, each split at a random place: what is before it is given.

    Training splits elsewhere in every epoch, evaluation always at the same places.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        text_column: the column that holds the text.
    """

    several: ClassVar[bool] = True
    tokenised: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(self, path: str | list[str] | None = None, *, text_column: str = "text", **kwargs: Any) -> None:
        super().__init__(path, columns={"text": text_column}, **kwargs)

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        return [
            self._examples(ids, row)
            for ids, row in zip(token_ids(self.tokenizer, [row["text"] for row in rows]), rows, strict=True)
        ]

    def _examples(self, ids: np.ndarray, row: dict[str, Any]) -> Example | None:
        """The pieces of a document; the last one has its end token."""
        assert self.tokenizer is not None
        bos, eos = self.tokenizer.bos_id, self.tokenizer.eos_id
        length = self.max_length + 1 - (bos is not None) - (eos is not None)
        found = []
        for number, (offset, piece) in enumerate(pieces(ids, length)):
            if len(piece) >= LEAST:
                at, last = split_point(len(piece), (*row["key"], number)), offset + len(piece) == len(ids)
                size, name = self.bytes_of(piece[at:]), piece_id(row["id"], offset)
                found.append(prefix_lm(piece[:at], piece[at:], name, bos, eos if last else None, size))
        return in_turn([example for example in found if example is not None])

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """Texts to go on from; of the data's own splits, the part of a first piece that evaluation gives."""
        assert self.tokenizer is not None
        found: list[Example | None] = []
        if self.predict_path is not None:
            for ids, row in zip(token_ids(self.tokenizer, [row["text"] for row in rows]), rows, strict=True):
                found.append(self.prompt(ids, row["id"]) if len(ids) else None)
            return found
        for example in self.prepare(rows):
            if example is not None:
                example, seen = first_part(example), int(example.extras["prefix_mask"].sum())
                example.reference = self.tokenizer.decode(example.labels[seen - 1 :].tolist())
                example.tokens, example.labels = example.tokens[:seen], np.full(seen, IGNORED, dtype=np.int32)
                example.extras, example.full_length, example.truncated = (
                    {"prefix_mask": np.ones(seen, bool)},
                    seen,
                    False,
                )
            found.append(example)
        return found


class PrefixPairsData(PrefixData):
    """A text and the text to write for it, for a decoder: ``[bos] source [eos]`` is given, ``target [eos]`` predicted.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        source_column: the column that is given.
        target_column: the column that is to be written.
        max_length: tokens of both; of a longer pair the longer text is cut, and counted.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(path, columns={"source": source_column, "target": target_column}, **kwargs)

    def settle(self, run: RunDirectory | None) -> None:
        super().settle(run)
        assert self.tokenizer is not None
        if self.tokenizer.eos_id is None:
            raise ConfigError("the tokenizer has no end token, without which a source and a target would never end")

    def facts(self) -> dict[str, Any]:
        end = [] if self.tokenizer is None else [self.tokenizer.eos_id]
        return {**super().facts(), "prompt": {"bidirectional": True, "after": end}}

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        return [row["source"], row["target"]]

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        bos, eos = self.tokenizer.bos_id, self.tokenizer.eos_id
        sources, targets = (token_ids(self.tokenizer, [row[field] for row in rows]) for field in self.fields)
        found: list[Example | None] = []
        for source, target, row in zip(sources, targets, rows, strict=True):
            if len(source) == 0 or len(target) == 0:
                found.append(None)
                continue
            read, written = cut_pair(source, with_ends(target, None, eos), self.max_length - (bos is not None))
            lost = len(source) + len(target) + 1 - len(read) - len(written)
            whole = min(len(written), len(target))
            example = prefix_lm(
                with_ends(read, None, eos), written, row["id"], bos, None, self.bytes_of(target[:whole])
            )
            if example is not None and lost:
                example.full_length, example.truncated = example.full_length + lost, True
            found.append(example)
        return found

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """Sources, to be answered."""
        assert self.tokenizer is not None
        sources = token_ids(self.tokenizer, [row["source"] for row in rows])
        return [
            self.prompt(with_ends(ids, None, self.tokenizer.eos_id), row["id"]) if len(ids) else None
            for ids, row in zip(sources, rows, strict=True)
        ]
