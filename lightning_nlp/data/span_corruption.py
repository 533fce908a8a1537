"""Data of span corruption (T5): any text, read with spans replaced by sentinels; the spans are to be written."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from lightning_nlp.data.damaged_text import DamagedTextData
from lightning_nlp.data.objectives import Example, Spans, span_corruption
from lightning_nlp.data.prepared.encoded import token_ids
from lightning_nlp.data.tokenizers.added_tokens import encode_with_sentinels, sentinel_ids
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class SpanCorruptionData(DamagedTextData):
    """Documents with hidden spans. Training hides others in every epoch, evaluation always the same.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        max_source_length: tokens of a source, sentinels and end token included; documents are cut into pieces that
            fill it, all of which are used. How long targets become follows.
        noise_density: share of the tokens that are hidden.
        mean_span_length: tokens of a hidden span, on average.
        tokenizer: which tokenizer to train, always with as many sentinels as are needed, or to load.
    """

    tokenised: ClassVar[tuple[str, ...]] = ("text",)

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        max_source_length: int = 128,
        noise_density: float = 0.15,
        mean_span_length: float = 3.0,
        tokenizer: TokenizerConfig = TokenizerConfig(),  # noqa: B008 - frozen
        **kwargs: Any,
    ) -> None:
        if not 0 < noise_density < 1:
            raise ConfigError(f"data.noise_density must be between 0 and 1, not {noise_density}")
        if mean_span_length < 1:
            raise ConfigError(f"data.mean_span_length must be at least 1, not {mean_span_length}")
        self.spans = Spans(noise_density, mean_span_length)
        self._raw = self.spans.raw_length(max_source_length)
        if self._raw < 3:
            raise ConfigError(f"data.max_source_length {max_source_length} is too short for a text with a hidden span")
        self._longest = self.spans.lengths(self._raw)[1], max_source_length
        self.needed = self.spans.of(self._raw)[1]
        tokenizer = dataclasses.replace(tokenizer, sentinels=max(tokenizer.sentinels, self.needed))
        super().__init__(path, max_length=max(self._longest), tokenizer=tokenizer, **kwargs)
        self.sentinels = np.zeros(0, dtype=np.int32)

    @property
    def piece_length(self) -> int:
        return self._raw

    @property
    def longest(self) -> tuple[int, int]:
        return self._longest

    def settle(self, run: RunDirectory | None) -> None:
        super().settle(run)
        assert self.tokenizer is not None
        self.sentinels = sentinel_ids(self.tokenizer.backend)
        if len(self.sentinels) < self.needed:
            raise ConfigError(
                f"the tokenizer has {len(self.sentinels)} sentinels (<extra_id_0> ...), span corruption needs "
                f"{self.needed} for data.max_source_length {self._longest[1]}: train one with data.tokenizer.sentinels"
            )

    def facts(self) -> dict[str, Any]:
        spans = f"hidden:{self.spans.density:.3g} of tokens|mean span:{self.spans.mean_length:.3g}"
        return {**super().facts(), "damage": spans}

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        ends = self.decoder_start_id, self.tokenizer.eos_id

        def damage(ids: np.ndarray, id: str, key: tuple[int, ...], offset: int) -> Example | None:
            return span_corruption(ids, id, key, self.spans, self.sentinels, *ends)

        texts = token_ids(self.tokenizer, [row["text"] for row in rows])
        return [self.in_pieces(ids, row, damage) for ids, row in zip(texts, rows, strict=True)]

    def encode_damaged(self, text: str) -> list[int]:
        assert self.tokenizer is not None
        return encode_with_sentinels(self.tokenizer, text)
