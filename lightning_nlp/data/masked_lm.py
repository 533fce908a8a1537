"""Data of the masked language model: any text, packed, with tokens hidden anew at every visit of a document."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.module import TextDataModule
from lightning_nlp.data.objectives import IGNORED, Example, Masking, cut_to, masked_lm, with_ends
from lightning_nlp.data.prepared.encoded import token_ids, token_words
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class MaskedLMData(TextDataModule):
    """Documents with hidden tokens. Training hides others in every epoch, evaluation always the same.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        text_column: the column that holds the text.
        mask_prob: share of the tokens that have to be predicted.
        random_token_prob: share of those that are replaced by a random token.
        leave_unmasked_prob: share of those that stay as they are; the others become the mask token.
        whole_word: choose words, with all their tokens (needs a tokenizer that knows words, such as bpe).
        tokenizer: which tokenizer to train, always with a mask token, or to load.
    """

    packed: ClassVar[bool] = True
    task: ClassVar[str] = "mlm"
    tokenised: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        text_column: str = "text",
        mask_prob: float = 0.15,
        random_token_prob: float = 0.1,
        leave_unmasked_prob: float = 0.1,
        whole_word: bool = False,
        tokenizer: TokenizerConfig = TokenizerConfig(),  # noqa: B008 - frozen
        **kwargs: Any,
    ) -> None:
        tokenizer = dataclasses.replace(tokenizer, mask_token=True)
        super().__init__(path, columns={"text": text_column}, tokenizer=tokenizer, **kwargs)
        if not 0 < mask_prob < 1:
            raise ConfigError(f"data.mask_prob must be between 0 and 1, not {mask_prob}")
        shares = {"random_token_prob": random_token_prob, "leave_unmasked_prob": leave_unmasked_prob}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"data.{name} must be in [0, 1], not {value}")
        if random_token_prob + leave_unmasked_prob > 1:
            raise ConfigError("data.random_token_prob and data.leave_unmasked_prob are together more than 1")
        self.mask_prob, self.whole_word = mask_prob, whole_word
        self.random_token_prob, self.leave_unmasked_prob = random_token_prob, leave_unmasked_prob
        self.masking: Masking | None = None

    def settle(self, run: RunDirectory | None) -> None:
        assert self.tokenizer is not None
        if self.tokenizer.mask_id is None:
            raise ConfigError(
                "the tokenizer has no mask token, which masked language modelling needs: "
                "train one with data.tokenizer.mask_token"
            )
        if self.whole_word and not self.tokenizer.knows_words:
            raise ConfigError("data.whole_word needs a tokenizer that knows words, such as data.tokenizer.kind bpe")
        special = np.array(self.tokenizer.special_ids, dtype=np.int32)
        known = np.array(sorted(self.tokenizer.backend.get_vocab(with_added_tokens=True).values()), dtype=np.int32)
        self.masking = Masking(
            self.tokenizer.mask_id,
            special,
            np.setdiff1d(known, special),
            share=self.mask_prob,
            random=self.random_token_prob,
            kept=self.leave_unmasked_prob,
        )

    @property
    def needs_words(self) -> bool:
        return self.whole_word

    def facts(self) -> dict[str, Any]:
        hidden = 1 - self.random_token_prob - self.leave_unmasked_prob
        fates = f"{hidden:.3g}/{self.random_token_prob:.3g}/{self.leave_unmasked_prob:.3g}"
        unit = "words" if self.whole_word else "tokens"
        return {**super().facts(), "masking": f"masked:{self.mask_prob:.3g} of {unit}|mask/random/kept:{fates}"}

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None and self.masking is not None
        tokenizer, texts = self.tokenizer, [row["text"] for row in rows]
        encoded: list[tuple[np.ndarray, np.ndarray | None]]
        if self.whole_word:
            encoded = list(token_words(tokenizer, texts))
        else:
            encoded = [(ids, None) for ids in token_ids(tokenizer, texts)]
        return [
            masked_lm(ids, row["id"], row["key"], self.masking, tokenizer.bos_id, tokenizer.eos_id, words)
            for (ids, words), row in zip(encoded, rows, strict=True)
        ]

    def prepare_prediction(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        """Texts with the mask token's name in them; of the data's own splits, what evaluation hides."""
        if self.predict_path is None:
            return [None if example is None else self._cut(example) for example in self.prepare(rows)]
        assert self.tokenizer is not None
        found: list[Example | None] = []
        for row in rows:
            ids = self.tokenizer.encode_masked(row["text"])
            full = with_ends(ids, self.tokenizer.bos_id, self.tokenizer.eos_id)
            labels = np.full(len(full), IGNORED, dtype=np.int32)
            example = Example(full, labels, row["id"], full_length=len(full))
            found.append(self._cut(example) if ids else None)
        return found

    def _cut(self, example: Example) -> Example:
        """One row's worth of a document."""
        assert self.tokenizer is not None
        if len(example.tokens) > self.max_length:
            example.truncated = True
            example.tokens = cut_to(example.tokens, self.max_length, self.tokenizer.eos_id)
            example.labels = cut_to(example.labels, self.max_length, IGNORED)
        return example
