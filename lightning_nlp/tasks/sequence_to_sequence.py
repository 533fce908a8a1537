"""Sequence to sequence: read one text, write another; translation, summaries, answers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.generate import evaluating, generate
from lightning_nlp.decoding.sampling import GenerationConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.tokens import ExactMatch
from lightning_nlp.optim.optimizers import OptimizerConfig
from lightning_nlp.optim.schedules import ScheduleConfig
from lightning_nlp.tasks.base import TaskModule
from lightning_nlp.tasks.token_head import TokenHead

SAMPLES = 4
"""The first rows of the validation split, decoded for TensorBoard."""


class SequenceToSequenceHead(TokenHead):
    """Next-token scores of a decoder that sees a source; answers. ``labels [B, T]`` are targets, -100 is padding."""

    arrangements: ClassVar[tuple[str, ...]] = ("encoder_decoder",)

    def __init__(self, generation: GenerationConfig, decode_examples: int, loss: LossConfig) -> None:
        super().__init__(loss)
        if decode_examples < 0:
            raise ConfigError(f"model.decode_examples must be 0 or more, not {decode_examples}")
        self.generation = generation
        self.decode_examples = decode_examples
        self.decoder_start_id: int | None = None
        self.damage = ""
        names = ("loss", "perplexity", "token_accuracy", *(["exact_match"] if decode_examples else []))
        self.metric_names = names  # type: ignore[misc]  # what is there depends on what is asked for
        self._shown: dict[int, tuple[list[int], str]] = {}

    def resolve(self, facts: dict[str, Any]) -> None:
        super().resolve(facts)
        self.damage = facts.get("damage", "")

    def build(self, config: TransformerConfig) -> None:
        super().build(config)
        self.decoder_start_id = config.decoder_start_id
        self.exact_match = ExactMatch()

    def answers(
        self,
        backbone: Transformer,
        source_tokens: Tensor,
        source_segments: Tensor | None = None,
        generation: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Texts written for the sources ``[B, S]`` (``source_segments [B, S]``: 0 is padding).

        Raises:
            ConfigError: it is not known what a target starts with.
        """
        assert self.tokenizer is not None
        if self.decoder_start_id is None:
            raise ConfigError("backbone.decoder_start_id is not set and there is no data to take it from")
        with torch.no_grad(), evaluating(backbone):
            memory = backbone.encode(source_tokens, source_segments)
        found = generate(
            backbone,
            lambda hidden: self.written(backbone, hidden),
            [[self.decoder_start_id]] * len(source_tokens),
            generation or self.generation,
            eos_id=self.tokenizer.eos_id,
            pad_id=0 if self.tokenizer.pad_id is None else self.tokenizer.pad_id,
            memory=memory,
            memory_segments=source_segments,
            **kwargs,
        )
        return [self.tokenizer.decode(ids) for ids in found]

    def encode_source(self, text: str) -> list[int]:
        """Token ids of a source as in training: with its end token, but never cut.

        Raises:
            ConfigError: an empty text.
        """
        assert self.tokenizer is not None
        ids = self.tokenizer.encode(text)
        if not ids:
            raise ConfigError("the source is empty: give some text")
        return ids if self.tokenizer.eos_id is None else [*ids, self.tokenizer.eos_id]

    def update(self, backbone: Transformer, batch: dict[str, Any]) -> None:
        super().update(backbone, batch)
        if self.tokenizer is None:
            return
        places, known = batch["places"].tolist(), self.tokenizer
        references = [known.decode(row[row != -100].tolist()) for row in batch["labels"]]
        for row, place in enumerate(places):
            if 0 <= place < SAMPLES:
                real = batch["source_segments"][row] > 0
                self._shown[place] = batch["source_tokens"][row][real].tolist(), references[row]
        rows = [row for row, place in enumerate(places) if 0 <= place < self.decode_examples]
        if rows:
            greedy = dataclasses.replace(self.generation, temperature=0.0, top_k=None, top_p=None)
            found = self.answers(backbone, batch["source_tokens"][rows], batch["source_segments"][rows], greedy)
            self.exact_match.update(found, [references[row] for row in rows])

    def compute(self) -> dict[str, float]:
        values = {re.sub(r"\baccuracy$", "token_accuracy", name): value for name, value in super().compute().items()}
        return {**values, **(self.exact_match.compute() if self.decode_examples else {})}

    def reset(self) -> None:
        super().reset()
        self.exact_match.reset()

    def signatures(self) -> dict[str, str]:
        decoded = f"greedy|first:{self.decode_examples} rows|max_new_tokens:{self.generation.max_new_tokens}"
        tokens = f"{self.metrics.signature}|given:the right tokens before"
        tokens += f"|{self.damage}" if self.damage else ""
        return {
            "loss": tokens,
            "token_accuracy": tokens,
            "exact_match": f"{self.exact_match.signature}|{decoded}",
        }

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """What is written for each source, beside its reference where that is known."""
        rows = [row for row, ids in enumerate(batch["example_ids"]) if ids]
        if not rows:
            return
        found = self.answers(backbone, batch["source_tokens"][rows], batch["source_segments"][rows])
        for row, text in zip(rows, found, strict=True):
            record = {"id": batch["example_ids"][row][0], "source": batch["texts"][row], "prediction": text}
            if batch["references"][row] is not None:
                record["target"] = batch["references"][row]
            yield record | ({"tokens_cut": batch["cut"][row]} if batch["cut"][row] else {})

    def samples(self, backbone: Transformer) -> dict[str, str]:
        """The first rows of the validation split with what the model writes for them, and what it should."""
        if self.tokenizer is None:
            return {}
        texts = {}
        for place, (ids, reference) in sorted(self._shown.items()):
            (found,) = self.answers(backbone, torch.tensor([ids], device=backbone.embedding_weight.device))
            lines = {"source": self.tokenizer.decode(ids), "prediction": found, "target": reference}
            body = "\n".join(f"{name:<11}{text}" for name, text in lines.items())
            texts[f"sample_{place}"] = "    " + body.replace("\n", "\n    ")
        return texts


class SequenceToSequence(TaskModule):
    """Train an encoder-decoder to write a text for a text.

    Args:
        backbone: architecture; its arrangement is encoder_decoder.
        optimizer: optimizer and its settings.
        schedule: learning rate as a function of the step.
        generation: how predictions are decoded.
        decode_examples: first rows of the validation split that are decoded greedily at every validation, for
            exact_match; none by default, since decoding takes far longer than the other metrics.
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
        generation: GenerationConfig = GenerationConfig(max_new_tokens=128),  # noqa: B008 - frozen
        decode_examples: int = 0,
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        adapter: AdapterConfig = AdapterConfig(),  # noqa: B008 - frozen
        freeze: list[str] | None = None,
        trainable: list[str] | None = None,
    ) -> None:
        if isinstance(generation, dict):
            generation = GenerationConfig(**generation)
        head = SequenceToSequenceHead(generation, decode_examples, loss)
        super().__init__(backbone, {"seq2seq": head}, optimizer, schedule, adapter, freeze, trainable)

    def task_hyperparameters(self) -> dict[str, Any]:
        head = self.head
        assert isinstance(head, SequenceToSequenceHead)
        return {
            "generation": dict(vars(head.generation)),
            "decode_examples": head.decode_examples,
            "loss": dict(vars(head.loss_config)),
        }
