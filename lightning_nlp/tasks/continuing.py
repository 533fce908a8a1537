"""What heads of decoders have in common that write on from a prompt."""

from __future__ import annotations

from typing import Any

from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.beam import Hypothesis
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.generate import hypotheses
from lightning_nlp.errors import ConfigError
from lightning_nlp.tasks.base import made
from lightning_nlp.tasks.prompting import PromptConfig
from lightning_nlp.tasks.token_head import TokenHead


class ContinuingHead(TokenHead):
    """A head that continues prompts, with what the data puts around them."""

    prompt: PromptConfig
    generation: GenerationConfig

    def resolve(self, facts: dict[str, Any]) -> None:
        super().resolve(facts)
        if (found := facts.get("prompt")) is not None:
            self.prompt = made(PromptConfig, found)

    def continuations(
        self, backbone: Transformer, prompts: list[list[int]], generation: GenerationConfig, **options: Any
    ) -> list[list[int]]:
        """Token ids that follow each prompt (``bos`` included by the caller)."""
        found = self.hypotheses(backbone, prompts, generation, scored=generation.n_best > 1, **options)
        return [best[0].tokens for best in found]

    def hypotheses(
        self, backbone: Transformer, prompts: list[list[int]], generation: GenerationConfig, **options: Any
    ) -> list[list[Hypothesis]]:
        """The ``n_best`` texts that follow each prompt, with their scores.

        ``options`` are those of :func:`lightning_nlp.decoding.generate.hypotheses`.
        """
        assert self.tokenizer is not None
        pad, end = self.tokenizer.pad_id, self.prompt.end_id
        return hypotheses(
            backbone,
            lambda hidden: self.written(backbone, hidden),
            prompts,
            generation,
            eos_id=self.tokenizer.eos_id if end is None else end,
            pad_id=0 if pad is None else pad,
            bidirectional=self.prompt.bidirectional,
            **options,
        )

    def encode_prompt(self, text: str) -> list[int]:
        """Token ids of a prompt with what stands around it, after ``bos`` where the tokenizer has one.

        Raises:
            ConfigError: an empty prompt, and no ``bos`` to start from or nothing to answer.
        """
        assert self.tokenizer is not None
        return self.prompt_of(self.tokenizer.encode(text))

    def framed(self, ids: list[int]) -> list[int]:
        """Tokens to read, after ``bos`` where the tokenizer has one."""
        assert self.tokenizer is not None
        return ids if self.tokenizer.bos_id is None else [self.tokenizer.bos_id, *ids]

    def prompt_of(self, ids: list[int]) -> list[int]:
        """:meth:`encode_prompt` of a text in tokens."""
        if self.prompt.answers and not ids:
            raise ConfigError("the prompt is empty: give some text")
        if not (ids := self.framed([*self.prompt.before, *ids, *self.prompt.after])):
            raise ConfigError("the prompt is empty and the tokenizer has no start token: give some text")
        return ids

    def shown(self, prompt: str, new: list[int]) -> str:
        """A prompt with its continuation, or with the answer to it in a line of its own."""
        assert self.tokenizer is not None
        return f"{prompt}{chr(10) if self.prompt.answers else ''}{self.tokenizer.decode(new)}"
