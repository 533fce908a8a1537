"""Batches to answer: the rows of a file, in order, with their texts and without labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nlp.data.batches import Batches
from lightning_nlp.data.collate import Batch, with_texts
from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.arithmetic import DEFAULT_ROWS
from lightning_nlp.data.order.documents import Prepare, with_keys
from lightning_nlp.data.order.lanes import Row, single
from lightning_nlp.data.sources.bad_rows import FILTERED, BadRow, examine, refuse_long
from lightning_nlp.data.sources.files import FORMATS, find, inner_name
from lightning_nlp.data.sources.source import Source, SourceConfig, open_splits
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.files import sha256

if TYPE_CHECKING:
    from lightning_nlp.data.module import TextDataModule


def prediction_source(data: TextDataModule) -> Source:
    """The file given with ``--input`` (a line a text where it is plain text), else the test or validation split."""
    if data.predict_path is None:
        return data.split("test" if "test" in data.splits else "validation")
    hub = data.predict_path.startswith("hf:")
    name = inner_name(Path(data.predict_path))
    plain = not hub and not Path(data.predict_path).is_dir() and FORMATS.get(name.suffix.lower(), "text") == "text"
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
        path=data.predict_path,
        text_unit="line",
        validation_fraction=0.0,
        bad_rows="error" if data.source_config.bad_rows == "error" else "skip",
        reading=data.source_config.reading,
    )
    optional = frozenset(columns) - {data.asked, *data.beside}
    try:
        splits = open_splits(config, columns, dict.fromkeys(("train", "validation", "test"), "input"), optional)
    except ConfigError as error:
        raise ConfigError(str(error).replace("data.path", "--input", 1)) from error
    if len(splits) > 1:
        raise ConfigError(f"--input '{data.predict_path}' holds the splits {', '.join(splits)}: name one file")
    return next(iter(splits.values()))


@dataclass(slots=True)
class Asked:
    """A micro-batch: rows that can be answered, and records of those that cannot, by their place in the batch."""

    rows: list[Row] = field(default_factory=list)
    failed: dict[int, dict[str, Any]] = field(default_factory=dict)


class PredictionRows:
    """Every row of a source once, in order, a micro-batch at a time; ranks take micro-batches in turn.

    So a batch holds the same rows on any number of ranks, and after a restart, and what is said of a row is the same to
    the last bit. All ranks yield equally many; what is left for a rank at the end may be empty.

    Args:
        source: the rows.
        prepare: rows to examples, one a row.
        micro_batch: rows of a batch.
        data_ranks, rank: who takes which batch.
        done: rows that are answered already: a multiple of ``micro_batch``.
        numbered: no row is filtered out, so that the first ones need not be read to be passed over.
    """

    def __init__(
        self,
        source: Source,
        prepare: Prepare,
        *,
        micro_batch: int,
        data_ranks: int,
        rank: int,
        done: int = 0,
        numbered: bool = False,
    ) -> None:
        self.source, self.prepare, self.micro_batch = source, prepare, micro_batch
        self.data_ranks, self.rank, self.done, self.numbered = data_ranks, rank, done, numbered

    def _rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows with their numbers in the source, from the first one that is not answered."""
        first = self.done if self.numbered else 0
        rows = enumerate(self.source.scan(first), first)
        wanted = ((number, row) for number, row in rows if "bad" not in row or row["bad"].kind != FILTERED)
        return islice(wanted, self.done - first, None)

    def __iter__(self) -> Iterator[Asked]:
        rows, number = self._rows(), self.done
        while group := list(islice(rows, self.micro_batch * self.data_ranks)):
            start = self.rank * self.micro_batch
            yield self._asked(group[start : start + self.micro_batch], number + start)
            number += len(group)

    def _asked(self, rows: list[tuple[int, dict[str, Any]]], number: int) -> Asked:
        keyed = [with_keys([row], place)[0] for place, row in rows]
        asked = Asked()
        for place, (example, row) in enumerate(zip(examine(self.prepare, keyed, self.source), keyed, strict=True)):
            if isinstance(example, Example):
                asked.rows.append(single(example))
                asked.rows[-1].number = number + place
            else:
                reason = example.reason if isinstance(example, BadRow) else nothing_of(row)
                asked.failed[place] = {"id": row["id"], "error": reason}
        return asked


def nothing_of(row: dict[str, Any]) -> str:
    """Why a row gives no example although nothing is wrong with it."""
    texts = [value for name, value in row.items() if name not in ("id", "key", "number")]
    blank = not any(texts) or any(isinstance(text, str) and not text.strip() for text in texts)
    return "the text is empty" if blank else "the text gives nothing to predict from"


def prediction_batches(data: TextDataModule) -> Iterable[Batch]:
    """One example a row, in the order of the input; ``failed`` holds the records of rows that cannot be answered."""

    def prepare(rows: list[dict[str, Any]]) -> list[Example | None]:
        examples = data.prepare_prediction(rows)
        for row, example in zip(rows, examples, strict=True):
            if example is not None:
                example.text = row[data.asked]
                if data.answer is not None:
                    example.reference = row.get(data.answer)
        return examples

    def collate(asked: Asked) -> Batch:
        assert data.tokenizer is not None
        rows = asked.rows
        batch = data.collate_examples(rows, 0 if data.tokenizer.pad_id is None else data.tokenizer.pad_id)
        batch["task"] = data.task
        batch["failed"] = asked.failed
        return with_texts(batch, rows)

    long = "long" in (data.source_config.also_bad or ())
    rows = PredictionRows(
        data.prediction_source,
        refuse_long(prepare, data.max_length) if long else prepare,
        micro_batch=data.prediction_batch_size,
        data_ranks=data.ranks,
        rank=data.rank,
        done=data.predicted,
        numbered=data.predict_path is not None,
    )
    return Batches(rows, collate)


def prediction_batch_size(data: TextDataModule) -> int:
    """Rows answered at once; no function of the number of ranks."""
    return data.asked_eval_batch_size or min(data.global_batch_size, DEFAULT_ROWS)


def prediction_facts(data: TextDataModule) -> dict[str, Any]:
    """What predictions depend on: the content of the input, and how rows become examples."""
    path, source = data.predict_path, data.prediction_source
    if path is None or path.startswith("hf:"):
        name, content = path or source.name, source.fingerprint
    else:
        groups, _ = find(path, "auto")
        files = [file for group in groups.values() for file in group]
        name, content = Path(path).name, hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()[:16]
    return {
        "input": f"{name} ({content})",
        "data.columns": data.columns,
        "data.max_length": data.lengths,
        "data.eval_batch_size": prediction_batch_size(data),
        "data.bad_rows": data.source_config.bad_rows,
        "data.also_bad": data.source_config.also_bad,
    }
