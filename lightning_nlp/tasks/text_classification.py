"""A class, several labels or a number for a text or a pair of texts: topics, sentiment, similarity."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.classification import ClassificationMetrics
from lightning_nlp.metrics.examples import Record
from lightning_nlp.metrics.language_model import LanguageModelMetrics
from lightning_nlp.metrics.regression import RegressionMetrics
from lightning_nlp.optim.optimizers import OptimizerConfig
from lightning_nlp.optim.schedules import ScheduleConfig
from lightning_nlp.tasks.base import TaskModule
from lightning_nlp.tasks.classification_problems import PROBLEMS, ProblemName
from lightning_nlp.tasks.head import Head, Losses

Pooling = Literal["auto", "mean", "first", "last"]


class TextClassificationHead(Head):
    """Pools the hidden states of a text and maps them to scores; what these mean is the problem's business."""

    arrangements: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    def __init__(
        self, labels: list[str] | None, pooling: Pooling, dropout: float, problem: ProblemName = "auto"
    ) -> None:
        super().__init__()
        self.problem = problem
        self.metric_names = PROBLEMS["single" if problem == "auto" else problem].metric_names  # type: ignore[misc]
        self.labels = labels
        self.pooling = pooling
        self.dropout = nn.Dropout(dropout)

    @property
    def example_score(self) -> str:  # type: ignore[override]
        """Depends on the problem."""
        return self.asked.loss_name

    def resolve(self, facts: dict[str, Any]) -> None:
        asked, found = facts.get("problem"), facts.get("labels")
        if asked is not None and self.problem not in ("auto", asked):
            raise ConfigError(f"model.problem is {self.problem}, the data's is {asked}")
        self.problem = self.problem if asked is None else asked
        if found is None:
            return
        if self.labels is not None and self.labels != found:
            extra = sorted(set(self.labels) ^ set(found)) or ["their order"]
            raise ConfigError(f"model.labels and the labels of the data differ in {', '.join(extra[:5])}")
        self.labels = list(found)

    def build(self, config: TransformerConfig) -> None:
        super().build(config)
        self.problem = "single" if self.problem == "auto" else self.problem
        self.asked = PROBLEMS[self.problem](self.labels)
        self.metric_names = self.asked.metric_names  # type: ignore[misc]
        if self.pooling == "auto":
            self.pooling = "last" if config.arrangement == "decoder" else "mean"
        self.output = nn.Linear(config.d_model, self.asked.outputs)
        self.metrics = self.asked.metrics()
        self.losses = LanguageModelMetrics()

    def pool(self, hidden: Tensor, segments: Tensor) -> Tensor:
        """``[B, T, D]`` and ``[B, T]`` (0 = padding) -> ``[B, D]``."""
        real = segments > 0
        if self.pooling == "first":
            return hidden[:, 0]
        if self.pooling == "last":
            last = (real * torch.arange(real.shape[1], device=real.device)).argmax(1)
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
        weights = real.to(hidden.dtype)
        return (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True).clamp(min=1)

    def logits(self, backbone: Transformer, batch: dict[str, Any]) -> Tensor:
        """Scores ``[B, C]``. Which text of a pair a token is of is told where the backbone has token types."""
        types = batch.get("token_types") if backbone.config.token_types > 1 else None
        hidden = backbone(batch["tokens"], positions=batch["positions"], segments=batch["segments"], token_types=types)
        return self.output(self.dropout(self.pool(hidden, batch["segments"])))

    def forward(self, backbone: Transformer, batch: dict[str, Any]) -> Losses:
        return {"loss": self.asked.loss(self.logits(backbone, batch), batch["labels"])}

    def update(self, backbone: Transformer, batch: dict[str, Any]) -> None:
        logits = self.logits(backbone, batch)
        ids = [row[0] if row else "" for row in batch["example_ids"]]
        self.metrics.update(logits, batch["labels"], ids)
        self.observe(batch, logits, ids)
        loss_sum, count = self.asked.loss(logits, batch["labels"])
        self.losses.update(loss_sum, count, torch.zeros((), device=logits.device))

    def observe(self, batch: dict[str, Any], logits: Tensor, ids: list[str]) -> None:
        """Offer the texts of a batch, with their losses, to whoever wants to read examples."""
        if self.examples is None or self.tokenizer is None:
            return
        answers = self.asked.answers(logits)
        for row, identity in enumerate(ids):
            if identity:
                total, count = self.asked.loss(logits[row : row + 1], batch["labels"][row : row + 1])
                make = partial(self.record, batch, row, answers[row])
                self.examples.offer(identity, float(total) / max(float(count), 1.0), make)

    def record(self, batch: dict[str, Any], row: int, answer: dict[str, Any]) -> Record:
        """A text, or two, with what is said of it and what is right."""
        assert self.tokenizer is not None
        real, types = batch["segments"][row] > 0, batch.get("token_types")
        names = ("text", "text_pair") if types is not None else ("text",)
        texts = {
            name: self.tokenizer.decode(
                batch["tokens"][row][real & (types[row] == kind) if types is not None else real]
            )
            for kind, name in enumerate(names)
        }
        answer = {"confidence" if name == "score" else name: value for name, value in answer.items()}
        return {**texts, "target": self.asked.named(batch["labels"][row]), **answer}

    def compute(self) -> dict[str, float]:
        return {"loss": self.losses.compute()["loss"], **self.metrics.compute()}

    def reset(self) -> None:
        self.metrics.reset()
        self.losses.reset()

    def signatures(self) -> dict[str, str]:
        return {"loss": self.asked.loss_signature, **self.metrics.signatures}  # type: ignore[dict-item]

    def details(self) -> dict[str, dict[str, float]]:
        if isinstance(self.metrics, RegressionMetrics):  # a number has no classes
            return {}
        each: list[dict[str, float]] = self.metrics.each()  # type: ignore[operator]
        return dict(zip(self.asked.labels, each, strict=True)) if each else {}

    def confusion(self) -> tuple[Tensor, list[str]] | None:
        if not isinstance(self.metrics, ClassificationMetrics) or self.metrics.computed is None:
            return None
        return self.metrics.computed, self.asked.labels

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What is said of each text, with the scores it was chosen by."""
        answers = self.asked.answers(self.logits(backbone, batch))
        for ids, text, answer in zip(batch["example_ids"], batch["texts"], answers, strict=True):
            if ids:
                yield {"id": ids[0], "text": text, **answer}


class TextClassification(TaskModule):
    """Train an encoder, or a pre-trained decoder, to name the class of a text, its labels, or a number.

    Args:
        backbone: architecture.
        labels: names of the classes; taken from the data when left out.
        pooling: how hidden states become one vector (auto: mean for encoders, last token for decoders).
        head_dropout: dropout before the output layer.
        optimizer: optimizer and its settings.
        schedule: learning rate as a function of the step.
        adapter: small trained parts (lora, bottleneck) at layers of the backbone, which is frozen; the head is trained.
        freeze: patterns of parameters that are not trained, such as token_embedding or "layers.0".
        trainable: patterns of parameters that are trained although adapter or freeze would freeze them.
        problem: one class, any number of labels, or a number (auto: what the data has, one class without any).
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        labels: list[str] | None = None,
        pooling: Pooling = "auto",
        head_dropout: float = 0.1,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        schedule: ScheduleConfig = ScheduleConfig(),  # noqa: B008 - frozen
        adapter: AdapterConfig = AdapterConfig(),  # noqa: B008 - frozen
        freeze: list[str] | None = None,
        trainable: list[str] | None = None,
        problem: ProblemName = "auto",
    ) -> None:
        head = TextClassificationHead(labels, pooling, head_dropout, problem)
        super().__init__(backbone, {"classification": head}, optimizer, schedule, adapter, freeze, trainable)

    def task_hyperparameters(self) -> dict[str, Any]:
        head = self.head
        assert isinstance(head, TextClassificationHead)
        return {"labels": head.labels, "pooling": head.pooling, "head_dropout": head.dropout.p, "problem": head.problem}
