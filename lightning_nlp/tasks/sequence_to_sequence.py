"""Sequence to sequence: read one text, write another; the base of translation, summaries and dialogue."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import nn

from lightning_nlp.backbone.adapters import AdapterConfig
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.loss import LossConfig
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.beam import Hypothesis
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import evaluating, hypotheses
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.optimizers import OptimizerConfig
from lightning_nlp.optim.schedules import ScheduleConfig
from lightning_nlp.tasks.answers import AnsweringHead, padded
from lightning_nlp.tasks.base import TaskModule, made
from lightning_nlp.tasks.head import Head
from lightning_nlp.tasks.prompted import PromptedHead
from lightning_nlp.tasks.prompting import PromptConfig


class SequenceToSequenceHead(AnsweringHead):
    """Next-token scores of a decoder that sees a source; answers. ``labels [B, T]`` are targets, -100 is padding."""

    arrangements: ClassVar[tuple[str, ...]] = ("encoder_decoder",)
    decoder_start_id: int | None = None
    damage: str = ""

    def resolve(self, facts: dict[str, Any]) -> None:
        super().resolve(facts)
        if facts and facts.get("decoder_start_id") is None:
            raise ConfigError(
                "an encoder_decoder reads sources: give SequenceToSequenceData or DialoguePairsData, or "
                "backbone.arrangement decoder"
            )
        self.damage = facts.get("damage", "")

    def build(self, config: TransformerConfig) -> None:
        super().build(config)
        self.decoder_start_id = config.decoder_start_id

    def hypotheses(
        self, backbone: Transformer, questions: list[list[int]], generation: GenerationConfig, **options: Any
    ) -> list[list[Hypothesis]]:
        """The ``n_best`` texts for each source, with their scores.

        ``options`` are those of :func:`lightning_nlp.decoding.generate.hypotheses`.

        Raises:
            ConfigError: it is not known what a target starts with; a source is longer than the model.
        """
        assert self.tokenizer is not None
        if self.decoder_start_id is None:
            raise ConfigError("backbone.decoder_start_id is not set and there is no data to take it from")
        tokens, segments = padded(questions, 0, backbone.embedding_weight.device)
        with torch.no_grad(), evaluating(backbone):
            memory = backbone.encode(tokens, segments)
        if generation.no_repeat_ngram_scope == "source":  # the end of a source is none of a text
            options["source"] = [[id for id in row if id != self.tokenizer.eos_id] for row in questions]
        return hypotheses(
            backbone,
            lambda hidden: self.written(backbone, hidden),
            [[self.decoder_start_id]] * len(questions),
            generation,
            eos_id=self.tokenizer.eos_id,
            pad_id=0 if self.tokenizer.pad_id is None else self.tokenizer.pad_id,
            memory=memory,
            memory_segments=segments,
            **options,
        )

    def encode_source(self, text: str) -> list[int]:
        """Token ids of a source as in training: with what stands around it and its end token, but never cut.

        Raises:
            ConfigError: an empty text.
        """
        assert self.tokenizer is not None
        return self.prompt_of(self.tokenizer.encode(text))

    def framed(self, ids: list[int]) -> list[int]:
        """Tokens to read, with the end token where the tokenizer has one."""
        assert self.tokenizer is not None
        return ids if self.tokenizer.eos_id is None else [*ids, self.tokenizer.eos_id]

    def prompt_of(self, ids: list[int]) -> list[int]:
        """:meth:`encode_source` of a text in tokens."""
        if not ids:
            raise ConfigError("the source is empty: give some text")
        return self.framed([*self.prompt.before, *ids, *self.prompt.after])

    def question(self, batch: dict[str, Any], row: int) -> list[int]:
        real = batch["source_segments"][row] > 0
        return batch["source_tokens"][row][real].tolist()  # type: ignore[no-any-return]

    def signatures(self) -> dict[str, str]:
        found = super().signatures()
        if self.damage:
            found |= {name: f"{found[name]}|{self.damage}" for name in ("loss", "perplexity", "token_accuracy")}
        return found


class SequenceToSequence(TaskModule):
    """Train a model to write a text for a text: an encoder-decoder, or a decoder that reads the first as a prompt.

    Args:
        backbone: architecture; encoder_decoder, or decoder with data that gives prompts (PrefixPairsData,
            DialogueData).
        optimizer: optimizer and its settings.
        schedule: learning rate as a function of the step.
        generation: how predictions are decoded, and the answers that validate and test score.
        metrics: scores of decoded texts (see `lightning-nlp list metrics`).
        metric_options: of single metrics, such as {bleu: {tokenize: intl}}.
        language: of the answers (ISO 639, such as de or zh), by which metrics cut texts into words.
        decode_examples: first rows of the validation split that are decoded, greedily, at every validation of the
            training, for `metrics`; none by default, since decoding takes far longer than the other scores. The
            commands validate and test decode every row.
        loss: label smoothing and what else the training loss has.
        adapter: small trained parts (lora, bottleneck) at layers of the backbone, which is frozen; heads are trained.
        freeze: patterns of parameters that are not trained, such as token_embedding or "layers.0".
        trainable: patterns of parameters that are trained although adapter or freeze would freeze them.
        prompt: what stands around the prompts of a decoder; taken from the data.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        schedule: ScheduleConfig = ScheduleConfig(),  # noqa: B008 - frozen
        generation: GenerationConfig = GenerationConfig(max_new_tokens=128),  # noqa: B008 - frozen
        metrics: list[str] = ["exact_match"],  # noqa: B006 - copied
        metric_options: dict[str, dict[str, Any]] | None = None,
        language: str = "",
        decode_examples: int = 0,
        loss: LossConfig = LossConfig(),  # noqa: B008 - frozen
        adapter: AdapterConfig = AdapterConfig(),  # noqa: B008 - frozen
        freeze: list[str] | None = None,
        trainable: list[str] | None = None,
        prompt: PromptConfig = PromptConfig(),  # noqa: B008 - frozen
    ) -> None:
        more = metrics, metric_options, language, decode_examples, made(PromptConfig, prompt)
        settings = made(GenerationConfig, generation), made(LossConfig, loss), *more
        heads = heads_for(made(TransformerConfig, backbone).arrangement, settings)
        super().__init__(backbone, heads, optimizer, schedule, adapter, freeze, trainable)

    def choose_heads(self) -> None:
        """The arrangement may have come with weights (`--init_from`)."""
        head = self.head
        assert isinstance(head, AnsweringHead)
        heads = heads_for(self.config.arrangement, head.settings)
        if heads.keys() != self.heads.keys():
            self.heads = nn.ModuleDict(heads)

    def task_hyperparameters(self) -> dict[str, Any]:
        head = self.head
        assert isinstance(head, AnsweringHead)
        return {
            "generation": dict(vars(head.generation)),
            "metrics": head.text_metrics,
            "metric_options": head.metric_options,
            "language": head.language,
            "decode_examples": head.decode_examples,
            "loss": dict(vars(head.loss_config)),
            "prompt": head.prompt.plain(),
        }


def heads_for(arrangement: str, settings: tuple[Any, ...]) -> dict[str, Head]:
    """The head that answers with a backbone so arranged, under the name that batches call it by."""
    if arrangement == "decoder":
        return {"lm": PromptedHead(*settings)}
    return {"seq2seq": SequenceToSequenceHead(*settings)}
