"""The DataModule shell: text in, batches out, in an order that nothing can break.

Subclasses say which fields a row has and how a document becomes an example; sources, tokenizer, lanes, state and
evaluation are here. The position in the data is this module's state, as of the last optimizer step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lightning_nlp.data.batches import EndlessBatches
from lightning_nlp.data.collate import Batch, collate_packed, collate_single
from lightning_nlp.data.evaluation import evaluation_batches
from lightning_nlp.data.objectives import Example
from lightning_nlp.data.order.arithmetic import batch_size
from lightning_nlp.data.order.budget import MULTIPLE
from lightning_nlp.data.order.bulk import BulkStream
from lightning_nlp.data.order.joined import open_mixture
from lightning_nlp.data.order.lanes import Row
from lightning_nlp.data.order.mixture import MixtureConfig
from lightning_nlp.data.order.position import Position
from lightning_nlp.data.order.sizes import BatchPlan
from lightning_nlp.data.order.training import training_stream
from lightning_nlp.data.prediction import prediction_batch_size, prediction_batches, prediction_facts, prediction_source
from lightning_nlp.data.prepared.lookup import prepared_tokenizer, say, use_prepared
from lightning_nlp.data.sources.bad_rows import Extra, Policy, refuse_long
from lightning_nlp.data.sources.filters import Filter
from lightning_nlp.data.sources.reading import ReadingConfig
from lightning_nlp.data.sources.source import Format, Source, SourceConfig, open_splits
from lightning_nlp.data.tokenizers.of_run import settle_tokenizer
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer, TokenizerConfig
from lightning_nlp.data.training_texts import training_texts
from lightning_nlp.errors import ConfigError, DataError
from lightning_nlp.run.ranks import data_rank, data_ranks

if TYPE_CHECKING:
    from lightning_nlp.run.directory import RunDirectory

Prepare = Callable[[list[dict[str, Any]]], list[Example | None]]


class TextDataModule(BatchPlan, Position):
    """Streams text from files, the Hub or a sample builder.

    Args:
        path: a file, glob or folder; ``hf:NAME`` for the Hugging Face Hub or a saved dataset; ``sample:NAME`` for a
            sample corpus built on this machine.
        format: file format, by default told from the file name; those of text may be compressed (.gz, .zst).
        text_unit: what one row of a plain text file is.
        hub_config: configuration name of a Hub dataset.
        streaming: read rows in the order they lie in, without downloading, unpacking or indexing anything first.
        validation_fraction: share of rows held out for validation where the data has no such split.
        take: use only the first so many rows of each split.
        pair: endings of aligned files of lines, source first: ``[en, de]`` reads train.en beside train.de.
        target_path: file with the targets for the lines of ``path``.
        filters: conditions that rows must meet to be used.
        bad_rows: ``error`` stops at a row that cannot be used, ``skip`` leaves it out and counts it; ``auto`` stops at
            one among the first 1,000 rows and skips later ones.
        bad_rows_budget: skipped rows that stop the run: a share of the rows read (below 1), or a number of rows.
        also_bad: what else counts as a bad row: ``empty`` texts, ``long`` ones, a ``duplicate_id``.
        reading: details of reading files.
        tokenizer: which tokenizer to train or load.
        max_length: tokens in a row; longer documents are split (language models) or cut (classification), and counted.
        mixture: several sources and how often each is drawn from, instead of ``path``.
        packing: how documents share the rows of packed data: end to end, or whole documents chosen to fit.
        static_shapes: pad every row to the full length, for compiled models.
        global_batch_size: rows of one optimizer step, over all ranks and accumulated micro-batches.
        global_batch_tokens: the same in tokens (of rows of different lengths: with their padding); give one of the two.
        batch_ramp: rows by the step from which on they hold, for a batch that grows: ``{0: 8, 1000: 16, 5000: 32}``.
        micro_batch_size: rows a rank handles at once at the end of the ramp (default: all its rows of a global batch).
        micro_batch_tokens: the same in tokens.
        eval_batch_size: rows a rank evaluates, or answers, at once (default: the micro-batch; in predictions the global
            batch, or 32 where that is less).
        lanes: independent streams the documents are dealt to; fixed for the life of a run.
        block_rows: documents shuffled together within a lane.
        shuffle: draw documents in a new order every epoch.
        workers: processes a rank that read and tokenise ahead (0: none); they change nothing of what comes out.
        seed: of the order (default: ``seed_everything``).
        prepared: where to look for shards made by ``lightning-nlp prepare``: auto (the data directory), none, or a
            folder, which must then have them.
    """

    fields: ClassVar[tuple[str, ...]] = ("text",)
    packed: ClassVar[bool] = True
    task: ClassVar[str] = ""
    whole: ClassVar[bool] = False
    """No example is longer than a row, and none is cut."""
    several: ClassVar[bool] = False
    """A document may give more than one example."""
    asked: ClassVar[str] = "text"
    """The field that predictions are made from."""
    beside: ClassVar[tuple[str, ...]] = ()
    """Fields that have to stand beside it."""
    answer: ClassVar[str | None] = None
    """The field with the right answer, shown beside predictions where a row has it."""
    tokenised: ClassVar[tuple[str, ...]] = ()
    """Fields of which ``prepare`` needs the tokens alone, so that they can come out of prepared shards."""

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        format: Format = "auto",
        text_unit: Literal["document", "paragraph", "line"] = "document",
        hub_config: str | None = None,
        streaming: bool = False,
        validation_fraction: float = 0.05,
        take: int | None = None,
        pair: list[str] | None = None,
        target_path: str | None = None,
        filters: list[Filter] | None = None,
        bad_rows: Policy = "auto",
        bad_rows_budget: float = 0.01,
        also_bad: list[Extra] | None = None,
        reading: ReadingConfig = ReadingConfig(),  # noqa: B008 - frozen
        tokenizer: TokenizerConfig = TokenizerConfig(),  # noqa: B008 - frozen
        max_length: int = 256,
        mixture: MixtureConfig = MixtureConfig(),  # noqa: B008 - frozen
        packing: Literal["concatenate", "first_fit"] = "concatenate",
        static_shapes: bool = False,
        global_batch_size: int | None = None,
        global_batch_tokens: int | None = None,
        batch_ramp: dict[int, int] | None = None,
        micro_batch_size: int | None = None,
        micro_batch_tokens: int | None = None,
        eval_batch_size: int | None = None,
        lanes: int = 16,
        block_rows: int = 256,
        shuffle: bool = True,
        workers: int = 0,
        seed: int | None = None,
        prepared: str = "auto",
        columns: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        if bool(mixture.sources) == (path is not None):
            raise ConfigError("say where the text is: data.path, or data.mixture.sources")
        self.source_config = SourceConfig(
            path=path or "",
            format=format,
            text_unit=text_unit,
            hub_config=hub_config,
            streaming=streaming,
            validation_fraction=validation_fraction,
            take=take,
            pair=pair,
            target_path=target_path,
            filters=filters,
            bad_rows=bad_rows,
            bad_rows_budget=bad_rows_budget,
            also_bad=also_bad,
            reading=reading,
        )
        self.tokenizer_config = tokenizer
        self.columns = columns or {field: field for field in self.fields}
        self.max_length, self.lanes, self.block_rows, self.shuffle = max_length, lanes, block_rows, shuffle
        least = {"max_length": max_length, "lanes": lanes, "block_rows": block_rows, "eval_batch_size": eval_batch_size}
        for name, value in least.items():
            if value is not None and value < 1:
                raise ConfigError(f"data.{name} must be at least 1, not {value}")
        self.mixture, self.packing, self.static_shapes = mixture, packing, static_shapes
        self.batch = batch_size(
            global_batch_size,
            global_batch_tokens,
            batch_ramp,
            micro_batch_size,
            micro_batch_tokens,
            max_length if self.packed else None,
        )
        if static_shapes and self.batch.rows is None:
            raise ConfigError(
                "data.static_shapes beside data.global_batch_tokens: shapes then differ from step to step"
            )
        if workers < 0:
            raise ConfigError(f"data.workers must be at least 0, not {workers}")
        self.asked_eval_batch_size, self.workers = eval_batch_size, workers
        self._seed, self.prepared = seed, prepared
        self.accumulation = 1
        self.stage = ""
        self.ranks, self.rank = 1, 0
        self.splits: dict[str, Source] = {}
        self.tokenizer: Tokenizer | None = None
        self.initial_tokenizer: Path | None = None
        self.predict_path: str | None = None
        self.predicted = 0
        """Rows of what is predicted that are answered already."""
        self._predicting: tuple[str | None, Source] | None = None

    @property
    def lengths(self) -> str:
        """What rows are cut to, as the order of the data is known by."""
        return f"{self.max_length}"

    # What subclasses define -----------------------------------------------------------------------------------

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """Rows of a source to examples; None for one that gives nothing to learn from.

        What is random in an example must be a function of its row's ``key`` alone: rows are prepared by whichever rank
        needs them, ahead of time and again after a resume.
        """
        raise TypeError(f"{type(self).__name__} does not say how a row becomes an example")

    @property
    def checked_prepare(self) -> Prepare:
        """:meth:`prepare`, refusing long documents where the configuration counts them as bad."""
        long = "long" in (self.source_config.also_bad or ())
        return refuse_long(self.prepare, self.max_length) if long else self.prepare

    windowed: ClassVar[bool] = False
    """Documents are evaluated one by one, in windows, instead of packed."""

    def for_evaluation(self, prepare: Prepare) -> Prepare:
        """``prepare`` with what only evaluation needs."""
        return prepare

    def settle(self, run: RunDirectory | None) -> None:
        """Decide what else the data decides (labels ...), once sources and tokenizer are there."""

    def facts(self) -> dict[str, Any]:
        """What the model must know: ``vocab_size, pad_id, max_length, sources`` and, in subclasses, ``labels``."""
        if self.tokenizer is None:
            return {}
        return {
            "vocab_size": self.tokenizer.vocab_size,
            "pad_id": self.tokenizer.pad_id,
            "max_length": self.max_length,
            "sources": list(self.mixture.sources),
        }

    # Set-up ---------------------------------------------------------------------------------------------------

    @property
    def run(self) -> RunDirectory | None:
        """The run directory, when a Trainer of ours is attached."""
        return getattr(self.trainer, "run_directory", None)

    def prepare_data(self) -> None:
        """On one process only: build samples, train or fetch the tokenizer, keep it with the run."""
        self.open()
        self._settle_tokenizer()

    def setup(self, stage: str) -> None:
        """On every process: open sources, load the tokenizer, derive the batch arithmetic."""
        before, self.stage = self.stage, stage
        if not self.splits or "predict" in (before, stage):  # which shows texts, and prepared shards have none
            self.open()
            self._settle_tokenizer()
        self.settle(self.run)
        if stage == "fit" and self.trainer is not None:
            if hasattr(self.trainer, "plan"):
                self.trainer.plan(self)
            else:
                self.trainer.accumulate_grad_batches = self.plan(1, 0)
        elif self.trainer is not None:
            self.ranks, self.rank = data_ranks(self.trainer), data_rank(self.trainer)

    def open(self) -> None:
        """Open the sources as they are, prepared or not."""
        if self.predict_path is not None:
            return
        if self.mixture.sources:
            self.splits = open_mixture(self.mixture, self.source_config, self.columns)
        else:
            self.splits = open_splits(self.source_config, self.columns)

    def _settle_tokenizer(self) -> None:
        self.tokenizer = settle_tokenizer(
            self.tokenizer_config,
            self.texts,
            kept=self.run.tokenizer if self.run is not None else None,
            initial=self.initial_tokenizer,
            save=self._first_process(),
            prepared=lambda: prepared_tokenizer(self),
        )
        self.splits = use_prepared(self, say if self._first_process() else lambda line: None)

    def _first_process(self) -> bool:
        return self.trainer is None or self.trainer.is_global_zero

    def texts(self) -> Iterator[list[str]]:
        """The texts of every training document in turn, to train a tokenizer on."""
        return training_texts(self.split("train"), self.texts_of)

    def config_of(self, source: str) -> SourceConfig:
        """What a source of the mixture, or the only one (''), is opened with."""
        return self.source_config if not source else self.mixture.sources[source].config(self.source_config)

    def columns_of(self, source: str) -> dict[str, str]:
        """``{field: column}`` of a source."""
        return self.columns if not source else {**self.columns, **self.mixture.sources[source].columns}

    @property
    def needs_words(self) -> bool:
        """``prepare`` asks which tokens begin a word."""
        return False

    @property
    def one_text(self) -> bool:
        """Rows are a text's tokens end to end, as in :func:`~lightning_nlp.data.objectives.causal_lm`."""
        return False

    def texts_of(self, row: dict[str, Any]) -> list[str]:
        """The texts of a row, for training a tokenizer."""
        return [row["text"]]

    def split(self, name: str) -> Source:
        """An opened split.

        Raises:
            DataError: the data has no such split.
        """
        if name not in self.splits:
            hint = "; data.validation_fraction above 0 holds rows out" if name == "validation" else ""
            raise DataError(
                f"data.path {self.source_config.path} has no {name} split (it has {', '.join(self.splits)}){hint}"
            )
        return self.splits[name]

    # Training batches -----------------------------------------------------------------------------------------

    @property
    def order_seed(self) -> int:
        """What the order of the data is drawn from."""
        return self._seed if self._seed is not None else int(os.environ.get("PL_GLOBAL_SEED", 0))

    def train_dataloader(self) -> Iterable[Batch]:
        self._stream = training_stream(self)
        if self._restored is not None:
            self._stream.restore(self._restored)
        if isinstance(self._stream, BulkStream):
            return EndlessBatches(self._stream, lambda batch: batch)
        return EndlessBatches(self._stream, self.collate)

    def teardown(self, stage: str) -> None:
        """Training ended: so do the workers."""
        if self._stream is not None:
            self._stream.close()

    def collate(self, rows: list[Row]) -> Batch:
        """Rows to tensors, with this module's task name."""
        assert self.tokenizer is not None
        pad = 0 if self.tokenizer.pad_id is None else self.tokenizer.pad_id
        batch = collate_packed(rows, pad) if self.packed else self.collate_examples(rows, pad)
        batch["task"] = self.task
        if rows and rows[0].origin:
            batch["origin"] = rows[0].origin
        return batch

    def collate_examples(self, rows: list[Row], pad_id: int) -> Batch:
        """Rows of one example each to tensors."""
        return collate_single(rows, pad_id, self.multiple)

    @property
    def multiple(self) -> int:
        """What lengths are rounded up to."""
        return self.max_length if self.static_shapes else MULTIPLE

    # Evaluation -----------------------------------------------------------------------------------------------

    @property
    def remembers(self) -> bool:
        """The model carries states from row to row, so that rows must come in the order of their text."""
        model = getattr(self.trainer, "lightning_module", None)
        return bool(getattr(getattr(model, "config", None), "memory_length", 0))

    def val_dataloader(self) -> Iterable[Batch]:
        return evaluation_batches(self, self.split("validation"))

    def test_dataloader(self) -> Iterable[Batch]:
        return evaluation_batches(self, self.split("test"))

    # Prediction -----------------------------------------------------------------------------------------------

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """As :meth:`prepare`, for rows that have no labels."""
        return self.prepare(rows)

    @property
    def prediction_source(self) -> Source:
        """What is predicted, opened once."""
        if self._predicting is None or self._predicting[0] != self.predict_path:
            self._predicting = self.predict_path, prediction_source(self)
        return self._predicting[1]

    @property
    def prediction_batch_size(self) -> int:
        """Rows answered at once."""
        return prediction_batch_size(self)

    def prediction_facts(self) -> dict[str, Any]:
        """What predictions depend on, as plain values by the names of settings."""
        return prediction_facts(self)

    def predict_dataloader(self) -> Iterable[Batch]:
        return prediction_batches(self)
