"""Causal language modelling: predict the next token; the pre-training objective of GPT."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.targets import IGNORED
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.data.objectives import rolling_windows
from lightning_nlp.decoding.sampling import GenerationConfig
from lightning_nlp.metrics.language_model import LanguageModelMetrics
from lightning_nlp.optim.optimizers import OptimizerConfig
from lightning_nlp.optim.schedules import ScheduleConfig
from lightning_nlp.tasks.base import TaskModule, made
from lightning_nlp.tasks.continuing import ContinuingHead
from lightning_nlp.tasks.prompting import PromptConfig
from lightning_nlp.tasks.records import written_record

SHORT = ("loss", "perplexity", "bits_per_byte")
"""What is said at every validation of a training."""


class CausalLMHead(ContinuingHead):
    """Next-token loss, perplexity and bits per byte, continuations. ``labels [B, T]``: the tokens after ``tokens``."""

    arrangements: ClassVar[tuple[str, ...]] = ("decoder",)
    metrics: LanguageModelMetrics  # type: ignore[assignment]
    metric_names: ClassVar[tuple[str, ...]] = SHORT

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
        self.metrics = LanguageModelMetrics(self.sources)

    def update(self, backbone: Transformer, batch: dict[str, Any]) -> None:
        labels, hidden = batch["labels"], self.hidden(backbone, batch)
        self.observe(backbone, batch, hidden)
        ends = self.ends(labels)  # they spell nothing, and do not count in what is said of the text
        text_loss, count = self.loss(backbone, hidden, labels.masked_fill(ends, IGNORED))
        loss_sum = text_loss.double()
        if ends.any():
            end_loss, end_count = self.loss(backbone, hidden[ends], labels[ends])
            loss_sum, count = loss_sum + end_loss.double(), count + end_count
        words = batch["words"].sum() if "words" in batch else None
        size, source = batch["bytes"].sum(), batch.get("origin")
        self.metrics.update(loss_sum, count, size, source, words=words, text_loss=text_loss)

    def ends(self, labels: Tensor) -> Tensor:
        """bool, True where ``labels`` are tokens that end a text or a turn."""
        known = self.tokenizer.eos_id if self.tokenizer is not None else None
        ids = [end for end in (known, self.prompt.end_id) if end is not None]
        return torch.isin(labels, torch.tensor(ids, dtype=labels.dtype, device=labels.device))

    def compute(self) -> dict[str, float]:
        """While a model is trained, three numbers; validate and test say bits a byte in other units too."""
        values = super().compute()
        return {name: value for name, value in values.items() if self.thorough or name.rpartition("/")[2] in SHORT}

    def signatures(self) -> dict[str, str]:
        of_text = dict.fromkeys(("bits_per_byte", "byte_perplexity", "word_perplexity"), self.metrics.text_signature)
        return {"loss": self.metrics.signature, "perplexity": self.metrics.signature, **of_text}

    def predict(self, backbone: Transformer, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The continuation of each text, or the answer to it; log-likelihood (nats) of a text that has labels."""
        assert self.tokenizer is not None
        prompts: list[list[int]] = []
        kept: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for row, (loss, count) in enumerate(self.losses(backbone, batch)):
            if ids := batch["example_ids"][row]:
                real = batch["segments"][row] > 0
                tokens, labels = batch["tokens"][row][real].tolist(), batch["labels"][row][real].tolist()
                prompts.append(tokens if labels[-1] in (self.tokenizer.eos_id, IGNORED) else [*tokens, labels[-1]])
                more = {"log_likelihood": -loss, "tokens": count} if count else {}
                if batch["references"][row] is not None:
                    more["target"] = batch["references"][row]
                kept.append(({"id": ids[0], "text": batch["texts"][row]}, more))
        for (record, more), found in zip(kept, self.hypotheses(backbone, prompts, self.generation), strict=True):
            yield {**record, **written_record(self.tokenizer.decode, found), **more}

    def losses(self, backbone: Transformer, batch: dict[str, Any]) -> list[tuple[float, int]]:
        """Summed loss of the labels of each row, and their number.

        Rows that are longer than the model reads at once are scored in windows, one after the other.
        """
        length = backbone.config.max_length
        if batch["tokens"].shape[1] <= length:
            hidden = self.hidden(backbone, batch)
            found = [self.loss(backbone, hidden[row], labels) for row, labels in enumerate(batch["labels"])]
            return [(float(loss), int(count)) for loss, count in found]
        losses = []
        for tokens, labels, segments in zip(batch["tokens"], batch["labels"], batch["segments"], strict=True):
            total, number = 0.0, 0
            for start, first, stop in rolling_windows(int((segments > 0).sum()), length):
                hidden = backbone(tokens[None, start:stop])[0, first - start :]
                loss, count = self.loss(backbone, hidden, labels[first:stop])
                total, number = total + float(loss), number + int(count)
            losses.append((total, number))
        return losses

    def samples(self, backbone: Transformer) -> dict[str, str]:
        """Continuations of the sample prompts; the same random numbers at every validation."""
        if self.tokenizer is None:
            return {}
        texts = {}
        for number, prompt in enumerate(self.sample_prompts):
            if not prompt and (self.prompt.answers or self.tokenizer.bos_id is None):  # there is nothing to answer
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
