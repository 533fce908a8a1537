"""Causal language modelling: predict the next token; the pre-training objective of GPT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.generate import generate
from lightning_nlp.decoding.sampling import GenerationConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.language_model import LanguageModelMetrics
from lightning_nlp.optim.optimizers import OptimizerConfig
from lightning_nlp.optim.schedules import ScheduleConfig
from lightning_nlp.tasks.base import TaskModule
from lightning_nlp.tasks.token_head import TokenHead


class CausalLMHead(TokenHead):
    """Next-token loss, perplexity and bits per byte, continuations. ``labels [B, T]``: the tokens after ``tokens``."""

    arrangements: ClassVar[tuple[str, ...]] = ("decoder",)
    metric_names: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "bits_per_byte")

    def __init__(self, generation: GenerationConfig, sample_prompts: list[str], loss: LossConfig) -> None:
        super().__init__(loss)
        self.generation = generation
        self.sample_prompts = sample_prompts

    def build(self, config: TransformerConfig) -> None:
        super().build(config)
        self.metrics = LanguageModelMetrics()  # type: ignore[assignment]

    def update(self, backbone: Transformer, batch: dict[str, Any]) -> None:
        loss_sum, count = self.loss(backbone, self.hidden(backbone, batch), batch["labels"])
        self.metrics.update(loss_sum, count, batch["bytes"].sum())

    def signatures(self) -> dict[str, str]:
        return {"loss": self.metrics.signature}

    def continuations(
        self, backbone: Transformer, prompts: list[list[int]], generation: GenerationConfig, **kwargs: Any
    ) -> list[list[int]]:
        """Token ids that follow each prompt (``bos`` included by the caller)."""
        assert self.tokenizer is not None
        pad = self.tokenizer.pad_id
        return generate(
            backbone,
            lambda hidden: self.written(backbone, hidden),
            prompts,
            generation,
            eos_id=self.tokenizer.eos_id,
            pad_id=0 if pad is None else pad,
            **kwargs,
        )

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt, after ``bos`` where the tokenizer has one.

        Raises:
            ConfigError: an empty prompt and no ``bos`` to start from.
        """
        assert self.tokenizer is not None
        ids = self.tokenizer.encode(text)
        if self.tokenizer.bos_id is not None:
            ids = [self.tokenizer.bos_id, *ids]
        if not ids:
            raise ConfigError("the prompt is empty and the tokenizer has no start token: give some text")
        return ids

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Log-likelihood of each text (nats), and its continuation."""
        assert self.tokenizer is not None
        hidden = backbone(batch["tokens"], positions=batch["positions"], segments=batch["segments"])
        prompts, kept = [], []
        for row, ids in enumerate(batch["example_ids"]):
            if ids:
                real = batch["segments"][row] > 0
                tokens, labels = batch["tokens"][row][real].tolist(), batch["labels"][row][real].tolist()
                loss, count = self.loss(backbone, hidden[row][real], batch["labels"][row][real])
                prompts.append(tokens if labels[-1] == self.tokenizer.eos_id else [*tokens, labels[-1]])
                kept.append((ids[0], batch["texts"][row], float(loss), int(count)))
        for record, new in zip(kept, self.continuations(backbone, prompts, self.generation), strict=True):
            identity, text, loss_sum, tokens_scored = record
            scores = {"log_likelihood": -loss_sum, "tokens": tokens_scored}
            yield {"id": identity, "text": text, "prediction": self.tokenizer.decode(new), **scores}

    def samples(self, backbone: Transformer) -> dict[str, str]:
        """Continuations of the sample prompts; the same random numbers at every validation."""
        if self.tokenizer is None:
            return {}
        texts = {}
        for number, prompt in enumerate(self.sample_prompts):
            if not prompt and self.tokenizer.bos_id is None:
                continue
            with torch.no_grad():
                (new,) = self.continuations(backbone, [self.encode_prompt(prompt)], self.generation)
            body = f"{prompt}{self.tokenizer.decode(new)}".replace("\n", "\n    ")
            texts[f"sample_{number}"] = f"    {body}"
        return texts


class CausalLM(TaskModule):
    """Train a decoder to predict the next token.

    Args:
        backbone: architecture of the decoder.
        optimizer: optimizer and its settings.
        schedule: learning rate as a function of the step.
        generation: how samples and predictions are decoded.
        sample_prompts: texts continued at every validation, shown in TensorBoard.
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
        generation: GenerationConfig = GenerationConfig(max_new_tokens=100, temperature=0.8, top_k=50, seed=0),  # noqa: B008
        sample_prompts: list[str] | None = None,
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        adapter: AdapterConfig = AdapterConfig(),  # noqa: B008 - frozen
        freeze: list[str] | None = None,
        trainable: list[str] | None = None,
    ) -> None:
        if isinstance(generation, dict):
            generation = GenerationConfig(**generation)
        prompts = [""] if sample_prompts is None else list(sample_prompts)
        head = CausalLMHead(generation, prompts, loss)
        super().__init__(backbone, {"lm": head}, optimizer, schedule, adapter, freeze, trainable)

    def task_hyperparameters(self) -> dict[str, Any]:
        head = self.head
        assert isinstance(head, CausalLMHead)
        return {
            "generation": dict(vars(head.generation)),
            "sample_prompts": head.sample_prompts,
            "loss": dict(vars(head.loss_config)),
        }
