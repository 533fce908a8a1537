"""Evaluation: every example of a split exactly once, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Literal

from lightning_nlp.data.batches import Batches
from lightning_nlp.data.collate import Batch, with_texts
from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.documents import Prepare, with_keys
from lightning_nlp.data.order.lanes import Row, pack, single
from lightning_nlp.data.prepared.encoded import Encoded
from lightning_nlp.data.sources.bad_rows import BadRow, Skipped, examine
from lightning_nlp.data.sources.source import Source
from lightning_nlp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning_nlp.data.module import TextDataModule


def evaluation_batches(data: TextDataModule, source: Source) -> Iterable[Batch]:
    """All of a split, packed as training is, or a row an example, which then brings its texts along."""
    packed, prepare = data.packed and not data.whole and not data.windowed, data.for_evaluation(data.checked_prepare)
    rows = EvalRows(
        source,
        prepare if packed else readable(data, prepare),
        mode="packed" if packed else "single",
        max_length=data.max_length,
        micro_batch=data.asked_eval_batch_size or data.micro_batch_size,
        data_ranks=data.ranks,
        rank=data.rank,
        lanes=data.lanes if data.remembers else None,
    )
    return Batches(rows, data.collate if packed else lambda rows: with_texts(data.collate(rows), rows))


def readable(data: TextDataModule, prepare: Prepare) -> Prepare:
    """``prepare`` that leaves the text of a row, and its right answer, with the example."""

    def text(value: Any) -> str:
        assert data.tokenizer is not None
        return data.tokenizer.decode(value.ids.tolist()) if isinstance(value, Encoded) else value

    def with_fields(rows: list[dict[str, Any]]) -> list[Example | None]:
        examples = prepare(rows)
        for row, example in zip(rows, examples, strict=True):
            if example is not None and not example.more:
                example.text = text(row[data.asked]) if data.asked in row else ""
                if data.answer is not None and row.get(data.answer) is not None:
                    example.reference = text(row[data.answer])
        return examples

    return with_fields


class EvalRows:
    """Every example of a split exactly once, on any number of ranks; all ranks yield equally many micro-batches.

    A row, and a micro-batch, holds examples of one source of a mixture alone, so that each can be measured by itself.

    Args:
        source: the rows.
        prepare: rows to examples.
        mode: ``packed`` (documents end to end, the last row padded) or ``single`` (an example a row).
        max_length: pairs in a packed row.
        micro_batch: rows a rank yields at once; a rank without rows yields an empty list.
        data_ranks, rank: who takes which row.
        by_length: in ``single`` mode, sort windows by length to save padding; False keeps the order.
        lanes: in ``packed`` mode, so many rows at a time, each of which continues the same text as the row of its lane
            before: for models that remember it.
    """

    def __init__(
        self,
        source: Source,
        prepare: Prepare,
        *,
        mode: Literal["packed", "single"],
        max_length: int,
        micro_batch: int,
        data_ranks: int,
        rank: int,
        by_length: bool = True,
        lanes: int | None = None,
    ) -> None:
        if lanes is not None and lanes % (data_ranks * micro_batch):
            raise ConfigError(f"lanes {lanes}, {data_ranks} ranks and micro-batch {micro_batch} do not divide")
        self.by_length, self.lanes = by_length, lanes
        self.source, self.prepare, self.mode, self.max_length = source, prepare, mode, max_length
        self.micro_batch, self.data_ranks, self.rank = micro_batch, data_ranks, rank

    def _examples(self) -> Iterator[Example]:
        rows, found, number, skipped = self.source.scan(0), False, 0, Skipped(self.source)
        while chunk := with_keys(list(islice(rows, 64)), number):
            for row, example in zip(chunk, examine(self.prepare, chunk, self.source), strict=True):
                if isinstance(example, BadRow):
                    skipped.check(row, example, number)
                elif example is not None:
                    found, example.place = True, number
                    for part in example.parts:
                        part.origin = row.get("origin", "")
                        yield part
                number += 1
        name = self.source.name
        if not number:
            raise DataError(f"the {name} data has no rows (data.validation_fraction of a short stream may be none)")
        if not found:
            raise DataError(f"no document of the {name} data gives anything to evaluate{skipped}")

    def _packed(self, examples: Iterator[Example]) -> Iterator[Row]:
        pieces: list[tuple[Example, int, int]] = []
        room = self.max_length
        for example in examples:
            offset = 0
            while offset < len(example.tokens):
                take = min(room, len(example.tokens) - offset)
                pieces.append((example, offset, take))
                offset, room = offset + take, room - take
                if not room:
                    yield pack(pieces, self.max_length)
                    pieces, room = [], self.max_length
        if pieces:
            yield pack(pieces, self.max_length)

    def _in_lanes(self, examples: Iterator[Example], lanes: int) -> Iterator[Row]:
        """Rows of all lanes in turn; a lane that needs a document takes the next one: the same on all ranks."""
        current: list[tuple[Example, int] | None] = [None] * lanes
        while True:
            rows: list[Row] = []
            for lane in range(lanes):
                pieces: list[tuple[Example, int, int]] = []
                room = self.max_length
                while room:
                    if current[lane] is None:
                        example = next(examples, None)
                        current[lane] = None if example is None else (example, 0)
                    if (at := current[lane]) is None:
                        break
                    example, offset = at
                    take = min(room, len(example.tokens) - offset)
                    pieces.append((example, offset, take))
                    room -= take
                    current[lane] = (example, offset + take) if offset + take < len(example.tokens) else None
                rows.append(pack(pieces, self.max_length))
                rows[-1].lane = lane if pieces else -1
            if all(row.lane < 0 for row in rows):
                return
            yield from rows

    def _single(self, examples: Iterator[Example]) -> Iterator[Row]:
        if not self.by_length:
            yield from map(single, examples)
        while window := list(islice(examples, 64 * self.micro_batch * self.data_ranks)):
            yield from map(single, sorted(window, key=lambda example: example.bulk))

    def __iter__(self) -> Iterator[list[Row]]:
        number = 0
        for origin, examples in groupby(self._examples(), key=lambda example: example.origin):
            rows = self._rows(examples)
            while group := list(islice(rows, self.micro_batch * self.data_ranks)):
                for place, row in enumerate(group):
                    row.number, row.origin = number + place if row.ids else -1, origin
                number += len(group)
                yield group[self.rank :: self.data_ranks]

    def _rows(self, examples: Iterator[Example]) -> Iterator[Row]:
        if self.mode == "single":
            return self._single(examples)
        return self._in_lanes(examples, self.lanes) if self.lanes else self._packed(examples)
