"""What all scores of written texts have in common: a language, example ids, and sums that ranks can add."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.metrics.unseen import Unseen

UNIT = 2.0**40
"""Shares are added as whole numbers of 1 / UNIT, so that a sum does not depend on the order of ranks: exact to 5e-13
an example, for up to eight million examples."""


class TextMetric(Metric):
    """Base of metrics that compare written texts with references.

    Subclasses give ``names``, ``signature``, :meth:`add` and :meth:`values`. All states are int64 and are added up, so
    any number of ranks gives the same bits.

    Args:
        language: ISO 639 code of the references (``de``, ``zh-CN``); empty where it is not known. It decides how texts
            are split into words.
    """

    full_state_update = False
    higher_is_better = True
    names: ClassVar[tuple[str, ...]]
    """What is logged."""
    rows: Tensor

    def __init__(self, language: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.language = primary(language)
        self.add_count("rows")
        self._unseen = Unseen()

    def add_count(self, name: str, *shape: int) -> None:
        """A state of whole numbers that ranks add."""
        self.add_state(name, default=torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")

    @property
    def signature(self) -> str:
        """Everything that the value depends on besides the texts."""
        raise TypeError(f"{type(self).__name__} has no signature")

    def signed(self, *parts: str) -> str:
        """``parts`` of a signature, and the language where it is known."""
        return "|".join((*parts, *([f"lang:{self.language}"] if self.language else [])))

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Only :meth:`update`: torchmetrics' own would reset in between and forget which ids were seen."""
        self.update(*args, **kwargs)

    def update(self, predictions: list[str], references: list[str], ids: list[str]) -> None:
        """Add written texts and what they should have been.

        Args:
            predictions: texts.
            references: one for each.
            ids: example ids; an empty one is padding, one that was seen before is ignored.

        Raises:
            ValueError: the lists differ in length.
        """
        if not len(predictions) == len(references) == len(ids):
            raise ValueError(f"{len(predictions)} predictions, {len(references)} references and {len(ids)} ids")
        if rows := self._unseen([bool(identity) for identity in ids], ids):
            self.rows += len(rows)
            self.add([predictions[row] for row in rows], [references[row] for row in rows])

    def add(self, predictions: list[str], references: list[str]) -> None:
        """Add texts that count, at least one, to the sums."""
        raise TypeError(f"{type(self).__name__} does not define sums")

    def compute(self) -> dict[str, float]:
        """A value for each of ``names``; nothing where there were no texts."""
        return self.values() if int(self.rows) else {}

    def values(self) -> dict[str, float]:
        """A value for each of ``names``, of at least one text."""
        raise TypeError(f"{type(self).__name__} does not define values")

    def reset(self) -> None:
        super().reset()
        self._unseen.forget()


class MeanOfTexts(TextMetric):
    """Means over texts of scores between 0 and 1."""

    sums: Tensor

    def __init__(self, language: str = "", **kwargs: Any) -> None:
        super().__init__(language, **kwargs)
        self.add_count("sums", len(self.names))

    def score(self, prediction: str, reference: str) -> tuple[float, ...]:
        """Of one text, in the order of ``names``."""
        raise TypeError(f"{type(self).__name__} does not define scores")

    def add(self, predictions: list[str], references: list[str]) -> None:
        pairs = zip(predictions, references, strict=True)
        parts = [[round(value * UNIT) for value in self.score(*pair)] for pair in pairs]
        self.sums += torch.tensor(parts, device=self.sums.device).sum(0)

    def values(self) -> dict[str, float]:
        count = int(self.rows) * UNIT
        return dict(zip(self.names, (total / count for total in self.sums.tolist()), strict=True))


def primary(language: str) -> str:
    """``zh-CN``, ``zh_CN`` -> ``zh``."""
    return language.replace("_", "-").partition("-")[0].lower()


def one_of(value: str, known: tuple[str, ...], option: str) -> str:
    """``value`` where it is among ``known``.

    Raises:
        ConfigError: it is not; the message gives the nearest.
    """
    if value not in known:
        raise ConfigError(f"unknown {option} '{value}'{nearest(value, known)} (known: {', '.join(known)})")
    return value
