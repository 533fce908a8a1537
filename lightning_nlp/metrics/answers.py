"""Whole answers and their words: exact match, and F1 as for SQuAD."""

from __future__ import annotations

import re
import string
import unicodedata
from typing import ClassVar

from lightning_nlp.metrics.rouge import common, f_score
from lightning_nlp.metrics.text_metric import MeanOfTexts
from lightning_nlp.metrics.words import words

ARTICLES = re.compile(r"\b(a|an|the)\b")
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


class ExactMatch(MeanOfTexts):
    """Share of answers that are, character by character, the reference."""

    names: ClassVar[tuple[str, ...]] = ("exact_match",)

    @property
    def signature(self) -> str:
        return "whole answers|characters"

    def score(self, prediction: str, reference: str) -> tuple[float, ...]:
        return (float(prediction == reference),)


class TokenF1(MeanOfTexts):
    """F1 of the words of each answer, averaged over answers, 0 to 1 (Rajpurkar et al. 2016).

    For English as SQuAD's script: lower case, ASCII punctuation and articles left out, words between spaces. For other
    languages, and where it is not known: words of any script. An answer without words is right (1) where the reference
    has none either (Rajpurkar et al. 2018).
    """

    names: ClassVar[tuple[str, ...]] = ("token_f1",)

    @property
    def signature(self) -> str:
        split = "tok:squad|articles:no" if self.language == "en" else "tok:unicode|articles:yes"
        return self.signed("mean of texts", split, "punct:no", "case:lc")

    def split(self, text: str) -> list[str]:
        """The words that are compared."""
        if self.language != "en":
            return words(text)
        return ARTICLES.sub(" ", unicodedata.normalize("NFC", text).lower().translate(NO_PUNCTUATION)).split()

    def score(self, prediction: str, reference: str) -> tuple[float, ...]:
        found, wanted = self.split(prediction), self.split(reference)
        if not found or not wanted:
            return (float(found == wanted),)
        return (f_score(common(found, wanted), len(found), len(wanted)),)
