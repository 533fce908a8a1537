"""Data of denoising (BART): any text, read damaged; the whole text is to be written."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from lightning_nlp.data.damaged_text import DamagedTextData
from lightning_nlp.data.objectives import Example, Noise, denoising
from lightning_nlp.data.prepared.encoded import token_ids
from lightning_nlp.data.tokenizers.sentences import encode_sentences
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class DenoisingData(DamagedTextData):
    """Documents and damaged copies. Training damages them anew in every epoch, evaluation always in the same way.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        max_length: tokens of a text, its end token included; documents are cut into pieces that fill it, all of which
            are used.
        permute_sentences: put the sentences of a piece in a random order.
        infill_share: share of the tokens hidden in spans, each of which becomes one mask token.
        mean_span_length: tokens of such a span, on average (Poisson; an empty span inserts a mask token).
        mask_share: share of the tokens replaced by a mask token each.
        delete_share: share of the tokens left out.
        rotate_prob: probability that a text begins at a random token, and what was before it comes last.
        tokenizer: which tokenizer to train, always with a mask token, or to load.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        *,
        max_length: int = 256,
        permute_sentences: bool = True,
        infill_share: float = 0.3,
        mean_span_length: float = 3.0,
        mask_share: float = 0.0,
        delete_share: float = 0.0,
        rotate_prob: float = 0.0,
        tokenizer: TokenizerConfig = TokenizerConfig(),  # noqa: B008 - frozen
        **kwargs: Any,
    ) -> None:
        for name, value in {
            "infill_share": infill_share,
            "mask_share": mask_share,
            "delete_share": delete_share,
        }.items():
            if not 0 <= value < 1:
                raise ConfigError(f"data.{name} must be in [0, 1), not {value}")
        if not 0 <= rotate_prob <= 1:
            raise ConfigError(f"data.rotate_prob must be in [0, 1], not {rotate_prob}")
        if mean_span_length < 1:
            raise ConfigError(f"data.mean_span_length must be at least 1, not {mean_span_length}")
        if max_length < 4:
            raise ConfigError(f"data.max_length must be at least 4, not {max_length}")
        if not (permute_sentences or infill_share or mask_share or delete_share or rotate_prob):
            raise ConfigError("nothing is damaged: give data.infill_share or another kind of noise")
        tokenizer = dataclasses.replace(tokenizer, mask_token=True)
        super().__init__(path, max_length=max_length, tokenizer=tokenizer, **kwargs)
        if not permute_sentences:  # where sentences end is not known of prepared shards
            self.tokenised = ("text",)  # type: ignore[misc]
        self.noise = Noise(-1, permute_sentences, infill_share, mean_span_length, mask_share, delete_share, rotate_prob)

    @property
    def piece_length(self) -> int:
        return self.max_length - 1

    @property
    def longest(self) -> tuple[int, int]:
        return self.max_length, self.max_length

    def settle(self, run: RunDirectory | None) -> None:
        super().settle(run)
        assert self.tokenizer is not None
        if self.tokenizer.mask_id is None:
            raise ConfigError(
                "the tokenizer has no mask token, which denoising needs: train one with data.tokenizer.mask_token"
            )
        self.noise = dataclasses.replace(self.noise, mask_id=self.tokenizer.mask_id)

    def facts(self) -> dict[str, Any]:
        named = {name: value for name, value in vars(self.noise).items() if name != "mask_id" and value}
        return {**super().facts(), "damage": "|".join(f"{name}:{value}" for name, value in named.items())}

    def prepare(self, rows: list[dict[str, Any]]) -> list[Example | None]:
        assert self.tokenizer is not None
        texts, ends = [row["text"] for row in rows], (self.decoder_start_id, self.tokenizer.eos_id)
        encoded: list[tuple[np.ndarray, np.ndarray | None]]
        if self.noise.permute_sentences:
            encoded = list(encode_sentences(self.tokenizer, texts))
        else:
            encoded = [(ids, None) for ids in token_ids(self.tokenizer, texts)]

        def example(ids: np.ndarray, sentences: np.ndarray | None, row: dict[str, Any]) -> Example | None:
            def damage(piece: np.ndarray, id: str, key: tuple[int, ...], offset: int) -> Example | None:
                inside = None if sentences is None else sentences[offset : offset + len(piece)]
                return denoising(piece, id, key, self.noise, *ends, inside)

            return self.in_pieces(ids, row, damage)

        return [example(ids, sentences, row) for (ids, sentences), row in zip(encoded, rows, strict=True)]

    def encode_damaged(self, text: str) -> list[int]:
        assert self.tokenizer is not None
        return self.tokenizer.encode_masked(text)
