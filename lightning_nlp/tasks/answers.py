"""Texts that a model writes in evaluation: decoded, scored against what should have been written, and shown."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.targets import IGNORED
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.data.tokenizers.added_tokens import decode_named, named_ids
from lightning_nlp.decoding.beam import Hypothesis
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.examples import Record
from lightning_nlp.metrics.texts import TextMetrics
from lightning_nlp.tasks.base import made
from lightning_nlp.tasks.prompting import PromptConfig
from lightning_nlp.tasks.records import written_record
from lightning_nlp.tasks.token_head import TokenHead

AT_ONCE = 16
"""Questions of a report that are answered together."""
SAMPLES = 4
"""The first rows of the validation split, decoded for TensorBoard."""


class AnsweringHead(TokenHead):
    """A head that writes a text for a text.

    While a model is trained, a validation decodes the first rows of its split, greedily. Otherwise (``thorough``) all
    rows are decoded, as predictions are.

    Args:
        generation: how predictions are decoded.
        loss: what the training loss has besides.
        metrics: names of text metrics.
        metric_options: of single ones.
        language: of the answers (ISO 639); it chooses how metrics cut them into words.
        decode_examples: rows decoded at a validation of training; 0: none.
        prompt: what stands around a question that is a text alone; the data says it.
    """

    fewest_labels: ClassVar[int] = 1

    def __init__(
        self,
        generation: GenerationConfig,
        loss: LossConfig,
        metrics: Sequence[str],
        metric_options: dict[str, dict[str, Any]] | None,
        language: str,
        decode_examples: int,
        prompt: PromptConfig = PromptConfig(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(loss)
        self.prompt = prompt
        if decode_examples < 0:
            raise ConfigError(f"model.decode_examples must be 0 or more, not {decode_examples}")
        self.generation, self.decode_examples = generation, decode_examples
        self.text_metrics, self.metric_options, self.language = list(metrics), metric_options, language
        self.texts = TextMetrics(self.text_metrics, language, metric_options)
        self._shown: dict[int, tuple[list[int], str]] = {}

    @property
    def settings(self) -> tuple[Any, ...]:
        """The arguments this head was made with, in order."""
        more = self.metric_options, self.language, self.decode_examples, self.prompt
        return self.generation, self.loss_config, self.text_metrics, *more

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]  # what is there depends on what is asked for
        decoded = self.texts.names if self.decode_examples or self.thorough else ()
        return ("loss", "perplexity", "token_accuracy", *decoded)

    def resolve(self, facts: dict[str, Any]) -> None:
        super().resolve(facts)
        if (found := facts.get("prompt")) is not None:
            self.prompt = made(PromptConfig, found)

    # What a kind of model says ------------------------------------------------------------------------------------

    def question(self, batch: dict[str, Any], row: int) -> list[int]:
        """The tokens a row gives: its source, or the prompt before its last answer."""
        raise NotImplementedError  # encoder-decoders have sources, decoders prompts

    hypotheses: Callable[..., list[list[Hypothesis]]]
    """``(backbone, questions, generation, **options)``: the ``n_best`` answers to each question, with their scores;
    options as of :func:`~lightning_nlp.decoding.generate.hypotheses`."""

    def write(
        self, backbone: Transformer, questions: list[list[int]], generation: GenerationConfig, **options: Any
    ) -> list[str]:
        """The best answer to each question."""
        assert self.tokenizer is not None
        found = self.hypotheses(backbone, questions, generation, scored=generation.n_best > 1, **options)
        return [self.spelled(best[0].tokens) for best in found]

    def spelled(self, ids: list[int]) -> str:
        """Tokens as text, in which masks and sentinels stand by their names: gaps and what fills them."""
        assert self.tokenizer is not None
        return decode_named(self.tokenizer, ids, named_ids(self.tokenizer))

    # Evaluation ---------------------------------------------------------------------------------------------------

    @property
    def evaluated_generation(self) -> GenerationConfig:
        """How evaluation decodes: as predictions are decoded, or greedily while a model is trained."""
        if self.thorough:
            return dataclasses.replace(self.generation, n_best=1)
        return self.generation.greedy()

    def reference(self, batch: dict[str, Any], row: int) -> str:
        """What should be written: the text of the data where the batch has it, else what the labels spell."""
        assert self.tokenizer is not None
        known: str | None = batch["references"][row] if "references" in batch else None
        return self.spelled(last_answer(batch["labels"][row])[1]) if known is None else known

    def update(self, backbone: Transformer, batch: dict[str, Any]) -> None:
        """Token scores of all rows, and the texts of those that are decoded."""
        super().update(backbone, batch)
        if self.tokenizer is None or "places" not in batch:
            return
        rows = []
        for row, place in enumerate(batch["places"].tolist()):
            if 0 <= place < SAMPLES:
                self._shown[place] = self.question(batch, row), self.reference(batch, row)
            if place >= 0 and (self.thorough or place < self.decode_examples):
                rows.append(row)
        if rows and self.text_metrics:
            found = self.write(backbone, [self.question(batch, row) for row in rows], self.evaluated_generation)
            ids = [batch["example_ids"][row][0] for row in rows]
            self.texts.update(found, [self.reference(batch, row) for row in rows], ids)
            if self.examples is not None:
                for identity, text in zip(ids, found, strict=True):
                    self.examples.amend(identity, prediction=text)

    def record(self, batch: dict[str, Any], row: int, there: Tensor, losses: Tensor, guesses: Tensor) -> Record:
        """A question and the right answer; what is written follows."""
        assert self.tokenizer is not None
        question = self.question(batch, row)
        target = self.reference(batch, row)
        source = self.tokenizer.decode_all(question)  # what stands between the turns of a conversation is seen
        return {"source": source, "prediction": None, "target": target, "question": question}

    def complete(self, backbone: Transformer, records: list[Record]) -> None:
        """Answers where none was written for a metric."""
        questions = {record["id"]: record.pop("question") for record in records}
        open_ones = [record for record in records if record["prediction"] is None]
        for start in range(0, len(open_ones), AT_ONCE):
            part = open_ones[start : start + AT_ONCE]
            found = self.write(backbone, [questions[record["id"]] for record in part], self.evaluated_generation)
            for record, text in zip(part, found, strict=True):
                record["prediction"] = text

    def compute(self) -> dict[str, float]:
        values = {re.sub(r"\baccuracy$", "token_accuracy", name): value for name, value in super().compute().items()}
        return {**values, **self.texts.compute()}

    def reset(self) -> None:
        super().reset()
        self.texts.reset()

    def signatures(self) -> dict[str, str]:
        tokens = f"{self.metrics.signature}|given:the right tokens before"
        decoded = decoding_signature(self.evaluated_generation)
        rows = "all" if self.thorough else f"first {self.decode_examples}"
        texts = {name: f"{how}|{decoded}|rows:{rows}" for name, how in self.texts.signatures().items()}
        return {**dict.fromkeys(("loss", "perplexity", "token_accuracy"), tokens), **texts}

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What is written for each source, and its score, beside its reference where that is known."""
        assert self.tokenizer is not None
        rows = [row for row, ids in enumerate(batch["example_ids"]) if ids]
        questions = [self.question(batch, row) for row in rows]
        written = self.hypotheses(backbone, questions, self.generation) if rows else []
        for row, found in zip(rows, written, strict=True):
            record = {"id": batch["example_ids"][row][0], "source": batch["texts"][row]}
            record |= written_record(self.spelled, found)
            if batch["references"][row] is not None:
                record["target"] = batch["references"][row]
            yield record | ({"tokens_cut": batch["cut"][row]} if batch["cut"][row] else {})

    def samples(self, backbone: Transformer) -> dict[str, str]:
        """The first rows of the validation split with what the model writes for them, and what it should."""
        if self.tokenizer is None:
            return {}
        texts = {}
        for place, (question, reference) in sorted(self._shown.items()):
            (found,) = self.write(backbone, [question], dataclasses.replace(self.generation, n_best=1))
            lines = {"source": self.spelled(question), "prediction": found, "target": reference}
            body = "\n".join(f"{name:<11}{text}" for name, text in lines.items())
            texts[f"sample_{place}"] = "    " + body.replace("\n", "\n    ")
        return texts


def last_answer(labels: Tensor) -> tuple[int, list[int]]:
    """Place of the first label of the last run of labels ``[T]``, and that run; no labels: the end, and nothing."""
    there = (labels != IGNORED).nonzero().flatten()
    if not len(there):
        return len(labels), []
    stop = int(there[-1]) + 1
    gaps = (labels[:stop] == IGNORED).nonzero().flatten()
    first = int(gaps[-1]) + 1 if len(gaps) else 0
    return first, labels[first:stop].tolist()


def decoding_signature(generation: GenerationConfig) -> str:
    """How texts are decoded, for reports."""
    if generation.beams > 1:
        how = f"beam:{generation.beams}|norm:{generation.length_norm}"
        how += "" if generation.length_norm == "none" else f"^{generation.length_penalty:g}"
    elif generation.temperature > 0:
        how = f"sampled|temperature:{generation.temperature:g}"
        for name in ("top_k", "top_p", "min_p", "typical_p", "seed"):
            value = getattr(generation, name)
            how += "" if value is None else f"|{name}:{value:g}"
    else:
        how = "greedy"
    for name, plain in (("repetition_penalty", 1.0), ("no_repeat_ngram_size", 0), ("min_new_tokens", 0)):
        value = getattr(generation, name)
        how += "" if value == plain else f"|{name}:{value:g}"
    return f"{how}|max_new_tokens:{generation.max_new_tokens}"


def padded(rows: list[list[int]], pad_id: int, device: Any) -> tuple[Tensor, Tensor]:
    """Token ids ``[B, S]`` filled up on the right, and their segments: 1, and 0 at padding."""
    length = max(map(len, rows))
    tokens = torch.tensor([[*row, *[pad_id] * (length - len(row))] for row in rows], device=device)
    segments = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
    return tokens, segments
