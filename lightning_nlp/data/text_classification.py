"""Data of text classification: a text or two, and what is to be said of them, batched by length."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from lightning_nlp.data.collate import Batch, collate_single, padding_row
from lightning_nlp.data.labels import MultiLabel, Problem, Regression, SingleLabel, natural
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import Example, classification, pair_classification
from lightning_nlp.data.order.lanes import Row
from lightning_nlp.data.prepared.encoded import token_ids
from lightning_nlp.data.sources.bad_rows import usable
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory
from lightning_nlp.run.files import write_json


class TextClassificationData(TextDataModule):
    """Texts, or pairs of texts, with a class, several labels or a number each.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        text_column: the column that holds the text.
        text_pair_column: the column that holds a second text, where the question is about two.
        label_column: the column that holds the label (text or number), the labels (a list, or names in a text), or
            the number.
        labels: names of the classes, in order; by default those of the training split, sorted.
        problem: one class a text, any number of labels, or a number.
        label_separator: between several labels in one text.
        lanes: fewer than for packed text, so that each holds enough neighbours of like length.
    """

    fields: ClassVar[tuple[str, ...]] = ("text", "label")
    packed: ClassVar[bool] = False
    task: ClassVar[str] = "classification"
    tokenised: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        text_column: str = "text",
        text_pair_column: str | None = None,
        label_column: str = "label",
        labels: list[str] | None = None,
        problem: Problem = "single",
        label_separator: str = ",",
        lanes: int = 4,
        **kwargs: Any,
    ) -> None:
        columns = {"text": text_column, "label": label_column}
        if text_pair_column is not None:
            columns["text_pair"] = text_pair_column
            self.tokenised, self.beside = ("text", "text_pair"), ("text_pair",)  # type: ignore[misc]
        super().__init__(path, lanes=lanes, columns=columns, **kwargs)
        if labels is not None and len(set(labels)) != len(labels):
            raise ConfigError("data.labels names a class twice")
        if labels is not None and problem == "regression":
            raise ConfigError("data.labels names classes, and data.problem regression has none")
        if not label_separator:
            raise ConfigError("data.label_separator is empty")
        if text_pair_column is not None and self.max_length < 5:
            raise ConfigError(f"data.max_length must be at least 5 for two texts, not {self.max_length}")
        kinds = {"single": SingleLabel, "multi_label": lambda: MultiLabel(label_separator), "regression": Regression}
        self.problem, self.kind = problem, kinds[problem]()
        self.labels = labels
        self._numbers: dict[str, int] = {}

    @property
    def of_pairs(self) -> bool:
        """Two texts a row."""
        return "text_pair" in self.columns

    def settle(self, run: RunDirectory | None) -> None:
        assert self.tokenizer is not None
        if self.of_pairs and self.tokenizer.eos_id is None:
            raise ConfigError("the tokenizer has no end token, which has to stand between two texts")
        if not self.kind.named:
            return
        kept = json.loads(run.labels.read_text(encoding="utf-8")) if run is not None and run.labels.is_file() else None
        if kept is not None and self.labels is not None and kept != self.labels:
            raise ConfigError(f"data.labels differ from the run's labels ({', '.join(kept[:5])} ...)")
        if self.labels is None:
            self.labels = kept if kept is not None else self._labels_of_training_split()
        self._numbers = {label: number for number, label in enumerate(self.labels)}
        if run is not None and kept is None and self._first_process():
            write_json(run.labels, self.labels)

    def _labels_of_training_split(self) -> list[str]:
        source = self.split("train")
        if source.num_rows is None:
            raise ConfigError("data.labels must be given for a stream: it cannot be read through first")
        rows = usable(source.scan(0), source)
        return sorted({name for row in rows for name in self.kind.names(row["label"])}, key=natural)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "labels": self.labels, "problem": self.problem}

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        return [row[field] for field in self.tokenised]

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        return self._examples(rows, [self.kind.target(row["label"], self._numbers) for row in rows])

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        return self._examples(rows, [self.kind.nothing(self._numbers)] * len(rows))

    def _examples(self, rows: list[dict[str, Any]], targets: list[Any]) -> list[Example | None]:
        assert self.tokenizer is not None
        bos, eos = self.tokenizer.bos_id, self.tokenizer.eos_id
        texts = [token_ids(self.tokenizer, [row[field] for row in rows]) for field in self.tokenised]
        found: list[Example | None] = []
        for *ids, target, row in zip(*texts, targets, rows, strict=True):
            if len(ids) == 1:
                found.append(classification(ids[0], target, row["id"], self.max_length, bos, eos))
            else:
                assert eos is not None
                found.append(pair_classification(ids[0], ids[1], target, row["id"], self.max_length, bos, eos))
        return found

    def collate_examples(self, rows: list[Row], pad_id: int) -> Batch:
        if rows or self.problem == "single":
            return super().collate_examples(rows, pad_id)
        padding = self.kind.nothing(self._numbers) + self.kind.padding  # NaN, in the shape of a target
        return collate_single([padding_row(padding, pad_id)], pad_id, self.multiple)
