"""What a Trainer iterates over: row lists made into tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lightning_nlp.data.collate import Batch


class Batches:
    """Collates an iterable of row lists."""

    def __init__(self, rows: Iterable[Any], collate: Callable[[Any], Batch]) -> None:
        self.rows, self.collate = rows, collate

    def __iter__(self) -> Iterator[Batch]:
        return map(self.collate, iter(self.rows))


class EndlessBatches(Batches):
    """Training batches; sized, because Lightning reads an unsized loader ahead and loses a batch at a resume."""

    def __len__(self) -> int:
        return sys.maxsize
