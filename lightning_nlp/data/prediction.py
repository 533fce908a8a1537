"""Batches to answer: the rows of a file, in order, with their texts and without labels."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nlp.data.batches import Batches
from lightning_nlp.data.collate import Batch, with_texts
from lightning_nlp.data.evaluation import EvalRows
from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.lanes import Row
from lightning_nlp.data.sources.files import FORMATS
from lightning_nlp.data.sources.source import Source, SourceConfig, open_splits
from lightning_nlp.errors import ConfigError

if TYPE_CHECKING:
    from lightning_nlp.data.module import TextDataModule


def prediction_source(data: TextDataModule) -> Source:
    """The file given with ``--input`` (a line a text where it is plain text), else the test or validation split."""
    if data.predict_path is None:
        return data.split("test" if "test" in data.splits else "validation")
    plain = FORMATS.get(Path(data.predict_path).suffix.lower(), "text") == "text"
    columns = {data.asked: "text" if plain else data.columns[data.asked]}
    if plain and data.beside:
        named = ", ".join(data.columns[field] for field in (data.asked, *data.beside))
        raise ConfigError(
            f"--input '{data.predict_path}' is plain text, the columns {named} are needed: give .jsonl or .csv"
        )
    columns |= {field: data.columns[field] for field in data.beside}
    if data.answer is not None and not plain:
        columns[data.answer] = data.columns[data.answer]
    config = SourceConfig(
        path=data.predict_path, text_unit="line", validation_fraction=0.0, reading=data.source_config.reading
    )
    return open_splits(config, columns, {"train": "input"}, frozenset(columns) - {data.asked, *data.beside})["train"]


def prediction_batches(data: TextDataModule) -> Iterable[Batch]:
    """One example a row, in the order of the input; empty texts are left out and counted in ``data.left_out``."""

    def prepare(rows: list[dict[str, Any]]) -> list[Example | None]:
        examples = data.prepare_prediction(rows)
        for row, example in zip(rows, examples, strict=True):
            if example is None:
                data.left_out += 1
            else:
                example.text = row[data.asked]
                if data.answer is not None:
                    example.reference = row.get(data.answer)
        return examples

    def collate(rows: list[Row]) -> Batch:
        assert data.tokenizer is not None
        batch = data.collate_examples(rows, 0 if data.tokenizer.pad_id is None else data.tokenizer.pad_id)
        batch["task"] = data.task
        return with_texts(batch, rows)

    rows = EvalRows(
        prediction_source(data),
        prepare,
        mode="single",
        max_length=data.max_length,
        micro_batch=data.asked_eval_batch_size or data.micro_batch_size,
        data_ranks=data.ranks,
        rank=data.rank,
        by_length=False,
    )
    return Batches(rows, collate)
