"""Masked language modelling: predict hidden tokens from both sides; the pre-training objective of BERT."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.targets import IGNORED
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.data.objectives import with_ends
from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.examples import Record
from lightning_nlp.optim.optimizers import OptimizerConfig
from lightning_nlp.optim.schedules import ScheduleConfig
from lightning_nlp.tasks.base import TaskModule
from lightning_nlp.tasks.token_head import TokenHead


class MaskedLMHead(TokenHead):
    """Scores of hidden tokens. Labels are -100 but where a token was chosen."""

    arrangements: ClassVar[tuple[str, ...]] = ("encoder",)
    metric_names: ClassVar[tuple[str, ...]] = ("loss", "pseudo_perplexity", "accuracy")

    def __init__(self, top_k: int, sample_texts: list[str], loss: LossConfig) -> None:
        super().__init__(loss)
        if top_k < 1:
            raise ConfigError(f"model.top_k must be at least 1, not {top_k}")
        self.top_k = top_k
        self.sample_texts = sample_texts
        self.masking = ""

    def resolve(self, facts: dict[str, Any]) -> None:
        super().resolve(facts)
        self.masking = facts.get("masking", "")

    def compute(self) -> dict[str, float]:
        # Of a few tokens hidden together, given the others: no probability of the text, hence the name.
        values = super().compute().items()
        return {re.sub(r"\bperplexity$", "pseudo_perplexity", name): value for name, value in values}

    def signatures(self) -> dict[str, str]:
        return {name: f"{self.metrics.signature}|{self.masking}".rstrip("|") for name in self.metric_names}

    def guesses(self, backbone: Transformer, hidden: Tensor) -> list[list[tuple[int, float]]]:
        """The ``top_k`` likeliest tokens, with their probabilities, at each of ``hidden [N, D]``."""
        probabilities = self.scores(backbone, hidden).float().softmax(-1)
        values, ids = probabilities.topk(min(self.top_k, probabilities.shape[-1]), dim=-1)
        return [
            list(zip(tokens, scores, strict=True)) for tokens, scores in zip(ids.tolist(), values.tolist(), strict=True)
        ]

    def fill(
        self, backbone: Transformer, tokens: Tensor, hidden: Tensor, labels: list[int] | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """``tokens [T]`` as text with every mask token replaced by its likeliest token, and the guesses for each."""
        assert self.tokenizer is not None and self.tokenizer.mask_id is not None
        places = (tokens == self.tokenizer.mask_id).nonzero().flatten()
        filled, records = tokens.tolist(), []
        for place, found in zip(places.tolist(), self.guesses(backbone, hidden[places]), strict=True):
            filled[place] = found[0][0]
            guesses = [{"token": self.tokenizer.decode([token]), "score": score} for token, score in found]
            record: dict[str, Any] = {"guesses": guesses}
            if labels is not None and labels[place] != -100:
                record["target"] = self.tokenizer.decode([labels[place]])
            records.append(record)
        return self.tokenizer.decode(filled), records

    def record(self, batch: dict[str, Any], row: int, there: Tensor, losses: Tensor, guesses: Tensor) -> Record:
        """A text as it was shown, as it was, and with the likeliest token wherever one was asked for."""
        assert self.tokenizer is not None
        tokens, labels = batch["tokens"][row].cpu()[there], batch["labels"][row].cpu()[there]
        asked = labels != IGNORED
        return {
            **super().record(batch, row, there, losses, guesses),
            "text": self.tokenizer.decode_all(tokens.tolist()),
            "prediction": self.tokenizer.decode(torch.where(asked, guesses[there], tokens).tolist()),
            "target": self.tokenizer.decode(torch.where(asked, labels, tokens).tolist()),
        }

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Each text with its mask tokens filled in, and for each of them the likeliest tokens with their scores."""
        hidden = self.hidden(backbone, batch)
        for row, ids in enumerate(batch["example_ids"]):
            if not ids:
                continue
            real = batch["segments"][row] > 0
            labels = batch["labels"][row][real].tolist()
            text, masks = self.fill(backbone, batch["tokens"][row][real], hidden[row][real], labels)
            record = {"id": ids[0], "text": batch["texts"][row], "prediction": text, "masks": masks}
            yield record | ({"tokens_cut": batch["cut"][row]} if batch["cut"][row] else {})

    def samples(self, backbone: Transformer) -> dict[str, str]:
        """The sample texts, filled in."""
        if self.tokenizer is None:
            return {}
        texts = {}
        for number, text in enumerate(self.sample_texts):
            ids = with_ends(self.tokenizer.encode_masked(text), self.tokenizer.bos_id, self.tokenizer.eos_id)
            tokens = torch.from_numpy(ids).long().to(backbone.embedding_weight.device)
            with torch.no_grad():
                filled, _ = self.fill(backbone, tokens, backbone(tokens[None])[0])
            texts[f"sample_{number}"] = "    " + f"{text}\n{filled}".replace("\n", "\n    ")
        return texts


class MaskedLM(TaskModule):
    """Train an encoder to predict hidden tokens from those on both sides.

    Args:
        backbone: architecture of the encoder (BERT's output layer: output_transform and output_bias).
        optimizer: optimizer and its settings.
        schedule: learning rate as a function of the step.
        top_k: guesses shown for every mask token in predictions.
        sample_texts: texts with <mask> in them, filled in at every validation and shown in TensorBoard.
        loss: label smoothing and what else the training loss has.
        adapter: small trained parts (lora, bottleneck) at layers of the backbone, which is frozen; heads are trained.
        freeze: patterns of parameters that are not trained, such as token_embedding or "layers.0".
        trainable: patterns of parameters that are trained although adapter or freeze would freeze them.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        schedule: ScheduleConfig = ScheduleConfig(),  # noqa: B008 - frozen
        top_k: int = 5,
        sample_texts: list[str] | None = None,
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        adapter: AdapterConfig = AdapterConfig(),  # noqa: B008 - frozen
        freeze: list[str] | None = None,
        trainable: list[str] | None = None,
    ) -> None:
        head = MaskedLMHead(top_k, list(sample_texts or []), loss)
        super().__init__(backbone, {"mlm": head}, optimizer, schedule, adapter, freeze, trainable)

    def task_hyperparameters(self) -> dict[str, Any]:
        head = self.head
        assert isinstance(head, MaskedLMHead)
        return {"top_k": head.top_k, "sample_texts": head.sample_texts, "loss": dict(vars(head.loss_config))}
