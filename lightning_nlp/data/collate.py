"""Rows to tensors: the one vocabulary of batches."""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from lightning_nlp.data.order.lanes import Row


class Batch(TypedDict, total=False):
    """What a task gets. B rows of T positions."""

    tokens: Tensor
    """int64 ``[B, T]``."""
    labels: Tensor
    """int64 ``[B, T]``, or ``[B]`` for classification; -100 = no loss.

    float32 ``[B, C]`` of zeros and ones for several labels, ``[B]`` for regression; NaN = no loss.
    """
    positions: Tensor
    """int64 ``[B, T]``, from 0 within each document of a row."""
    segments: Tensor
    """int64 ``[B, T]``; 0 = padding, documents of a row have different numbers and never see each other."""
    row_ids: Tensor
    """int64 ``[B]``, place in the global order; -1 = padding row."""
    lanes: list[int]
    """Of each row, the stream it continues; -1 where there is none."""
    continues: Tensor
    """bool ``[B]``, True where the row's first document began in an earlier row of its lane."""
    bytes: Tensor
    """int64 ``[B]``, utf-8 bytes the labels spell."""
    words: Tensor
    """int64 ``[B]``, words of the texts the labels spell, where they are counted: in evaluation."""
    padding: tuple[int, int]
    """Positions that are padding, and all positions, those of the sources too."""
    example_ids: list[list[str]]
    """Documents of each row; empty for a padding row."""
    source_tokens: Tensor
    """int64 ``[B, S]``, for the encoder of an encoder_decoder; likewise ``source_positions``, ``source_segments``."""
    source_positions: Tensor
    source_segments: Tensor
    prefix_mask: Tensor
    """bool ``[B, T]``, True for tokens that all of their document see (prefix language models)."""
    token_types: Tensor
    """int64 ``[B, T]``, which text of a pair a token is of."""
    places: Tensor
    """int64 ``[B]``, number of an evaluated row in its split; -1 in training and for padding rows."""
    texts: list[str]
    """Raw texts, of predicted and of evaluated rows."""
    references: list[str | None]
    """Right answers where they are known."""
    cut: list[int]
    """Tokens cut off each text."""
    failed: dict[int, dict[str, Any]]
    """Records of rows that cannot be answered, by their place among the rows asked for; in predictions."""
    origin: str
    """Evaluated rows of a mixture: the source that all of them are from."""
    task: str
    """Name of the head this batch is for."""


def stack(rows: list[Row], name: str, length: int, fill: int) -> Tensor:
    """One field of all rows, filled up on the right: ``[B, T]``."""
    out = np.full((len(rows), length), fill, dtype=np.int64)
    for number, row in enumerate(rows):
        values = getattr(row, name)
        out[number, : len(values)] = values
    return torch.from_numpy(out)


def padding_row(labels: Any, pad_id: int) -> Row:
    """A row that stands for nothing, so that every rank has something to run."""
    zero = np.zeros(1, dtype=np.int32)
    return Row(np.full(1, pad_id, dtype=np.int32), labels, zero, zero, [], 0)


def stack_extras(rows: list[Row], length: int) -> dict[str, Tensor]:
    """Further fields of the rows, each ``[B, T]``, filled up with 0; booleans stay so, numbers are int64."""
    found: dict[str, Tensor] = {}
    for name, values in {name: values for row in rows for name, values in row.extras.items()}.items():
        out = np.zeros((len(rows), length), dtype=bool if values.dtype == bool else np.int64)
        for number, row in enumerate(rows):
            if name in row.extras:
                out[number, : len(row.extras[name])] = row.extras[name]
        found[name] = torch.from_numpy(out)
    return found


def common(rows: list[Row], length: int, pad_id: int) -> Batch:
    known = {"words": torch.tensor([row.words for row in rows])} if any(row.words for row in rows) else {}
    return {
        **known,  # type: ignore[typeddict-item]
        **stack_extras(rows, length),  # type: ignore[typeddict-item]
        "tokens": stack(rows, "tokens", length, pad_id),
        "positions": stack(rows, "positions", length, 0),
        "segments": stack(rows, "segments", length, 0),
        "row_ids": torch.tensor([row.number for row in rows]),
        "lanes": [row.lane for row in rows],
        "continues": torch.tensor([row.continues for row in rows]),
        "bytes": torch.tensor([row.bytes for row in rows]),
        "example_ids": [row.ids for row in rows],
        "padding": padding_of([row.segments for row in rows], length),
    }


def padding_of(segments: list[np.ndarray], length: int) -> tuple[int, int]:
    """Padded positions, and all, of rows filled up to ``length``."""
    positions = length * len(segments)
    return positions - sum(int(np.count_nonzero(row)) for row in segments), positions


def collate_packed(rows: list[Row], pad_id: int) -> Batch:
    """Rows with a label at every position."""
    rows = rows or [padding_row(np.full(1, -100, dtype=np.int32), pad_id)]
    length = max(len(row.tokens) for row in rows)
    return {**common(rows, length, pad_id), "labels": stack(rows, "labels", length, -100)}


def collate_single(rows: list[Row], pad_id: int, multiple: int = 8) -> Batch:
    """Rows of different lengths with a label each, or one at every position; T is rounded up to ``multiple``."""
    per_token = bool(rows) and isinstance(rows[0].labels, np.ndarray) and rows[0].labels.dtype.kind == "i"
    rows = rows or [padding_row(-100, pad_id)]
    length = -(-max(len(row.tokens) for row in rows) // multiple) * multiple
    labels = (
        stack(rows, "labels", length, -100) if per_token else torch.from_numpy(np.array([row.labels for row in rows]))
    )
    return {**common(rows, length, pad_id), "labels": labels}


def collate_pairs(rows: list[Row], pad_id: int, multiple: int = 8) -> Batch:
    """Rows with a source and a label at every position; T and S are rounded up to ``multiple``."""
    if not rows:
        row = padding_row(np.full(1, -100, dtype=np.int32), pad_id)
        row.source = row.tokens
        rows = [row]
    batch = collate_single(rows, pad_id, multiple)
    sources = [np.zeros(0, dtype=np.int32) if row.source is None else row.source for row in rows]
    length = -(-max(map(len, sources)) // multiple) * multiple
    lengths = np.array([len(source) if row.ids else 0 for source, row in zip(sources, rows, strict=True)])
    positions = np.arange(length) * np.ones((len(rows), 1), dtype=np.int64)
    real = positions < lengths[:, None]
    tokens = np.full((len(rows), length), pad_id, dtype=np.int64)
    for number, source in enumerate(sources):
        tokens[number, : len(source)] = source
    batch["source_tokens"] = torch.from_numpy(tokens)
    batch["source_positions"] = torch.from_numpy(np.where(real, positions, 0))
    batch["source_segments"] = torch.from_numpy(real.astype(np.int64))
    padded, everything = batch["padding"]
    batch["padding"] = padded + int(real.size - real.sum()), everything + int(real.size)
    return batch


def with_texts(batch: Batch, rows: list[Row]) -> Batch:
    """The batch of ``rows`` with where they stand and what they read as, for predictions and for scores of texts."""
    batch["places"] = torch.tensor([row.place for row in rows] or [-1])
    batch["texts"] = [row.text for row in rows] or [""]
    batch["references"] = [row.reference for row in rows] or [None]
    batch["cut"] = [row.cut for row in rows] or [0]
    return batch
