"""Data of text classification: a text and the name of its class, batched by length."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from lightning_nlp.data.bad_rows import BadRowError, usable
from lightning_nlp.data.encoded import token_ids
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import Example, classification
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory
from lightning_nlp.run.files import write_json


class TextClassificationData(TextDataModule):
    """Texts with one label each.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        text_column: the column that holds the text.
        label_column: the column that holds the label (text or number).
        labels: names of the classes, in order; by default those of the training split, sorted.
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
        label_column: str = "label",
        labels: list[str] | None = None,
        lanes: int = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(path, lanes=lanes, columns={"text": text_column, "label": label_column}, **kwargs)
        if labels is not None and len(set(labels)) != len(labels):
            raise ConfigError("data.labels names a class twice")
        self.labels = labels
        self._numbers: dict[str, int] = {}

    def settle(self, run: RunDirectory | None) -> None:
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
        return sorted({str(row["label"]) for row in usable(source.scan(0), source)}, key=natural)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "labels": self.labels}

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        examples = []
        for row in rows:
            if str(row["label"]) not in self._numbers:
                known = ", ".join(list(self._numbers)[:8])
                reason = f"label '{row['label']}', never seen in training (known: {known})"
                raise BadRowError("unknown_label", f"row {row['id']} has {reason}")
            examples.append(self._numbers[str(row["label"])])
        return self._examples(rows, examples)

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        return self._examples(rows, [0] * len(rows))

    def _examples(self, rows: list[dict[str, Any]], labels: list[int]) -> list[Example | None]:
        assert self.tokenizer is not None
        tokenizer = self.tokenizer
        return [
            classification(ids, label, row["id"], self.max_length, tokenizer.bos_id, tokenizer.eos_id)
            for ids, label, row in zip(token_ids(tokenizer, [row["text"] for row in rows]), labels, rows, strict=True)
        ]


def natural(label: str) -> tuple[int, float, str]:
    """Numbers in numeric order, then names."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)
