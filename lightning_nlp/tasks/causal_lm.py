"""Causal language modelling: predict the next token; the pre-training objective of GPT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch

from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.targets import IGNORED
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.sampling import GenerationConfig
from lightning_nlp.metrics.language_model import LanguageModelMetrics
from lightning_nlp.optim.optimizers import OptimizerConfig
from lightning_nlp.optim.schedules import ScheduleConfig
from lightning_nlp.tasks.base import TaskModule, made
from lightning_nlp.tasks.continuing import ContinuingHead
from lightning_nlp.tasks.prompting import PromptConfig


class CausalLMHead(ContinuingHead):
    """Next-token loss, perplexity and bits per byte, continuations. ``labels [B, T]``: the tokens after ``tokens``."""

    arrangements: ClassVar[tuple[str, ...]] = ("decoder",)
    metric_names: ClassVar[tuple[str, ...]] = ("loss", "perplexity", "bits_per_byte")

    def __init__(
        self,
        generation: GenerationConfig,
        sample_prompts: list[str],
        loss: LossConfig,
        prompt: PromptConfig = PromptConfig(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(loss)
        self.prompt = prompt
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

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The continuation of each text, or the answer to it; log-likelihood (nats) of a text that has labels."""
        assert self.tokenizer is not None
        hidden = self.hidden(backbone, batch)
        prompts: list[list[int]] = []
        kept: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for row, ids in enumerate(batch["example_ids"]):
            if ids:
                real = batch["segments"][row] > 0
                tokens, labels = batch["tokens"][row][real].tolist(), batch["labels"][row][real].tolist()
                loss, count = self.loss(backbone, hidden[row][real], batch["labels"][row][real])
                prompts.append(tokens if labels[-1] in (self.tokenizer.eos_id, IGNORED) else [*tokens, labels[-1]])
                more = {"log_likelihood": -float(loss), "tokens": int(count)} if int(count) else {}
                if batch["references"][row] is not None:
                    more["target"] = batch["references"][row]
                kept.append(({"id": ids[0], "text": batch["texts"][row]}, more))
        for (record, more), new in zip(kept, self.continuations(backbone, prompts, self.generation), strict=True):
            yield {**record, "prediction": self.tokenizer.decode(new), **more}

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
            body = self.shown(prompt, new).replace("\n", "\n    ")
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
        prompt: what stands around prompts; taken from the data.
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
        prompt: PromptConfig = PromptConfig(),  # noqa: B008 - frozen
    ) -> None:
        if isinstance(generation, dict):
            generation = GenerationConfig(**generation)
        prompts = [""] if sample_prompts is None else list(sample_prompts)
        head = CausalLMHead(generation, prompts, loss, made(PromptConfig, prompt))
        super().__init__(backbone, {"lm": head}, optimizer, schedule, adapter, freeze, trainable)

    def task_hyperparameters(self) -> dict[str, Any]:
        head = self.head
        assert isinstance(head, CausalLMHead)
        return {
            "generation": dict(vars(head.generation)),
            "sample_prompts": head.sample_prompts,
            "loss": dict(vars(head.loss_config)),
            "prompt": head.prompt.plain(),
        }
