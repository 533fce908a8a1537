"""Data of the causal language model: any text, packed into rows without padding."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.module import Prepare, TextDataModule
from lightning_nlp.data.objectives import IGNORED, Example, causal_lm, in_turn, rolling_windows
from lightning_nlp.data.prepared.encoded import Encoded, Text, token_ids, utf8_size
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class CausalLMData(TextDataModule):
    """Documents for next-token prediction.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        text_column: the column that holds the text.
        eval_stride: evaluate every document by itself, in windows of ``max_length`` tokens that each predict so many
            new ones: ``max_length`` is lm-evaluation-harness's rolling likelihood, less gives tokens more context. By
            default evaluation packs documents as training does, which takes the fewest rows.
    """

    packed: ClassVar[bool] = True
    task: ClassVar[str] = "lm"
    tokenised: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        text_column: str = "text",
        eval_stride: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, columns={"text": text_column}, **kwargs)
        if eval_stride is not None and not 1 <= eval_stride <= self.max_length:
            raise ConfigError(
                f"data.eval_stride must be in [1, {self.max_length}] (data.max_length), not {eval_stride}"
            )
        self.eval_stride = eval_stride
        self.windowed = eval_stride is not None  # type: ignore[misc]  # a choice here

    @property
    def one_text(self) -> bool:
        return type(self).prepare is CausalLMData.prepare

    def settle(self, run: RunDirectory | None) -> None:
        if self.windowed and self.remembers:
            raise ConfigError("data.eval_stride beside backbone.memory_length: a memory carries the text before")

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        tokenizer = self.tokenizer
        texts = [row["text"] for row in rows]
        examples = []
        for ids, row, text in zip(token_ids(tokenizer, texts), rows, texts, strict=True):
            size = utf8_size(text)
            if tokenizer.bos_id is None and len(ids):  # the first token is then predicted from nothing: never
                size -= tokenizer.bytes_of(int(ids[0]), first=True)
            examples.append(causal_lm(ids, row["id"], size, tokenizer.bos_id, tokenizer.eos_id))
        return examples

    def words_of(self, text: Text) -> int:
        """Words of a text; of one in a prepared shard, where its tokens spell it exactly; else 0."""
        assert self.tokenizer is not None
        if isinstance(text, Encoded):
            spelled = self.tokenizer.decode(text.ids.tolist())
            return words_in(spelled) if len(spelled.encode()) == text.bytes else 0
        return words_in(text)

    def for_evaluation(self, prepare: Prepare) -> Prepare:
        """With the words of the texts, and in windows if asked for."""

        def prepared(rows: list[dict[str, Any]]) -> list[Example | None]:
            found = prepare(rows)
            for number, (row, example) in enumerate(zip(rows, found, strict=True)):
                if example is not None:
                    example.words = self.words_of(row["text"])
                    if self.eval_stride is not None:
                        assert self.tokenizer is not None
                        eos = self.tokenizer.eos_id
                        found[number] = in_windows(example, self.max_length, self.eval_stride, eos)
            return found

        return prepared


def in_windows(example: Example, length: int, stride: int, eos_id: int | None) -> Example | None:
    """A document in overlapping pieces; each label is in one of them.

    The windows are those of the text alone, as where no end token is predicted; its end is put to the only one, or has
    one of its own.
    """
    pairs = len(example.tokens)
    text = pairs - (eos_id is not None and int(example.labels[-1]) == eos_id)
    spans = rolling_windows(text, length, stride)
    if text < pairs <= length:
        spans = [(0, 0, pairs)]
    elif text < pairs:
        spans.append((pairs - length, text, pairs))
    pieces = []
    for start, first, stop in spans:
        labels = np.array(example.labels[start:stop])
        labels[: first - start] = IGNORED
        piece = Example(example.tokens[start:stop], labels, f"{example.id}@{first}" if first else example.id)
        piece.full_length = len(piece.tokens)
        pieces.append(piece)
    pieces[0].bytes, pieces[0].words = example.bytes, example.words
    return in_turn(pieces)


def words_in(text: str) -> int:
    """Words as lm-evaluation-harness counts them: what ``\\s+`` separates, empty ones at the ends included."""
    return len(re.split(r"\s+", text))
