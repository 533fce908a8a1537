"""How varied written texts are."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lightning_nlp.metrics.text_metric import TextMetric
from lightning_nlp.metrics.words import words

ORDERS = (1, 2)


class Distinct(TextMetric):
    """Distinct-1 and distinct-2 (Li et al. 2016): different words, and pairs of words, by all of them, over the corpus.

    Whether an n-gram is new cannot be known from sums, so a rank keeps a 64-bit hash of each different one, and these
    are gathered: eight bytes a different n-gram. References are not looked at. Values of corpora of different sizes do
    not compare.
    """

    names: ClassVar[tuple[str, ...]] = ("distinct1", "distinct2")
    total: Tensor

    def __init__(self, language: str = "", **kwargs: Any) -> None:
        super().__init__(language, **kwargs)
        self.add_count("total", len(ORDERS))
        for order in ORDERS:
            self.add_state(f"hashes{order}", default=[], dist_reduce_fx="cat")
        self._begin()

    def _begin(self) -> None:
        self._known: list[set[int]] = [set() for _ in ORDERS]
        for order in ORDERS:  # a rank without texts must take part in the gathering
            getattr(self, f"hashes{order}").append(torch.zeros(0, dtype=torch.int64, device=self.total.device))

    @property
    def signature(self) -> str:
        return self.signed("corpus", "tok:unicode", "punct:no", "case:lc")

    def add(self, predictions: list[str], references: list[str]) -> None:
        for text in predictions:
            parts = words(text)
            for place, (order, known) in enumerate(zip(ORDERS, self._known, strict=True)):
                grams = [hashed(parts[at : at + order]) for at in range(len(parts) - order + 1)]
                self.total[place] += len(grams)
                new = set(grams) - known
                known |= new
                getattr(self, f"hashes{order}").append(
                    torch.tensor(sorted(new), dtype=torch.int64).to(self.total.device)
                )

    def values(self) -> dict[str, float]:
        different = [len(dim_zero_cat(getattr(self, f"hashes{order}")).unique()) for order in ORDERS]
        shares = (count / max(total, 1) for count, total in zip(different, self.total.tolist(), strict=True))
        return dict(zip(self.names, shares, strict=True))

    def reset(self) -> None:
        super().reset()
        self._begin()


def hashed(gram: list[str]) -> int:
    """A number of 64 bits, the same in every process."""
    return int.from_bytes(
        hashlib.blake2b("\0".join(gram).encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True
    )
