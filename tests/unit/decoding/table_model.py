"""A language model that is a table: text so far to probabilities of the next token."""

from __future__ import annotations

import types

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.cache import KVCache

END, A, B = 0, 1, 2
NAMES = {"$": END, "a": A, "b": B}


class TableModel(nn.Module):
    """Stands in for a backbone. Each row's text lives in a real cache, one token a key: reordering it is put to the test.

    Args:
        tables: for each prompt (a number above 2), ``{"ab": {"a": 0.5, "$": 0.5}, ...}``; after a text not listed all
            three tokens are as likely.
    """

    def __init__(self, tables: dict[int, dict[str, dict[str, float]]], max_length: int = 64) -> None:
        super().__init__()
        self.tables = tables
        self.config = types.SimpleNamespace(max_length=max_length, arrangement="decoder")
        self.vocabulary = 3 + len(tables)
        self.token_embedding = nn.Embedding(self.vocabulary, 1)

    def new_cache(self, batch: int, max_length: int) -> KVCache:
        return KVCache(batch, 1, 1, max_length, 1)

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        texts = tokens
        if cache is not None:
            cache.extend(tokens.shape[1], segments)
            keys, _ = cache.update(0, *[tokens[:, None, :, None].float()] * 2)
            cache.advance(tokens.shape[1])
            texts = keys[:, 0, :, 0].long()
        rows = []
        for text in texts.tolist():
            start = max(place for place, token in enumerate(text) if token > B)
            states = [self.next(text[start], text[start + 1 : stop]) for stop in range(start + 1, len(text) + 1)]
            rows.append(torch.stack([torch.zeros(self.vocabulary)] * start + states)[-tokens.shape[1] :])
        return torch.stack(rows)

    def next(self, prompt: int, text: list[int]) -> Tensor:
        """Log-probabilities ``[V]``."""
        found = self.tables[prompt].get("".join("$ab"[token] for token in text), dict.fromkeys("$ab", 1 / 3))
        scores = torch.zeros(self.vocabulary)
        for name, probability in found.items():
            scores[NAMES[name]] = probability
        return scores.log()
