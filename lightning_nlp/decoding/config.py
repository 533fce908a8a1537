"""How text is decoded: one set of settings for greedy search, sampling and beam search. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from lightning_nlp.errors import ConfigError, nearest

LengthNorm = Literal["none", "average", "gnmt"]
Stop = Literal["finished", "heuristic", "never"]
Scope = Literal["new", "prompt", "source"]


@dataclass(frozen=True)
class GenerationConfig:
    """How text is decoded: greedily, by sampling (``temperature`` above 0), or by beam search (``beams`` above 1).

    Raises:
        ConfigError: impossible values, or settings that contradict each other.
    """

    max_new_tokens: int = 64
    """Tokens added at most, the end token included."""
    temperature: float = 0.0
    """0 takes the likeliest token; 1 samples from the model as it is."""
    top_k: int | None = None
    """Sample among the k likeliest."""
    top_p: float | None = None
    """Sample among the likeliest that together hold this probability (Holtzman et al. 2020)."""
    seed: int | None = None
    """Of the random numbers; None draws others every time."""
    min_p: float | None = None
    """Sample among tokens with at least this share of the likeliest one's probability (Nguyen et al. 2025)."""
    typical_p: float | None = None
    """Sample among tokens of about average information that together hold this probability (Meister et al. 2023)."""
    min_new_tokens: int = 0
    """No end token before this many tokens."""
    force_eos: bool = False
    """The last token allowed is the end token, with its own probability; otherwise such a text is cut."""
    repetition_penalty: float = 1.0
    """Above 1, tokens of the prompt and of the text so far become less likely (Keskar et al. 2019)."""
    no_repeat_ngram_size: int = 0
    """No n-gram of this size twice (Paulus et al. 2018); 0 allows all."""
    no_repeat_ngram_scope: Scope = "prompt"
    """Which n-grams count: those of the new tokens, those of the prompt as well, or those of the source as well."""
    bad_words: list[list[int]] | None = None
    """Token sequences that never appear."""
    beams: int = 1
    """Hypotheses a beam search keeps; 1 is no search."""
    length_norm: LengthNorm = "average"
    """Texts of L tokens are ranked by log-probability, divided by L^penalty, or by ((5 + L) / 6)^penalty (GNMT)."""
    length_penalty: float = 1.0
    """Exponent of the length; larger ones prefer longer texts."""
    stop: Stop = "heuristic"
    """A search ends with `beams` finished texts; when the best open one, at its length, is behind all of them; or
    when no longer text could get past them."""
    n_best: int = 1
    """Texts kept for each prompt: of a beam search, or so many samples."""

    def __post_init__(self) -> None:
        self._check_ranges()
        for name, known in (("no_repeat_ngram_scope", Scope), ("length_norm", LengthNorm), ("stop", Stop)):
            value, names = getattr(self, name), get_args(known)
            if value not in names:
                hint = nearest(str(value), names)
                raise ConfigError(f"unknown generation.{name} '{value}'{hint} (known: {', '.join(names)})")
        for word in self.bad_words or []:
            if not word or min(word) < 0:
                raise ConfigError(f"generation.bad_words holds {word}: give sequences of token ids, none of them empty")
        self._check_combinations()

    def _check_ranges(self) -> None:
        for name, least in (("max_new_tokens", 1), ("min_new_tokens", 0), ("no_repeat_ngram_size", 0)):
            self._at_least(name, least)
        for name in ("top_k", "beams", "n_best"):
            self._at_least(name, 1)
        if self.temperature < 0 or not math.isfinite(self.temperature):
            raise ConfigError(f"generation.temperature must be 0 or more, not {self.temperature}")
        for name in ("top_p", "min_p", "typical_p"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ConfigError(f"generation.{name} must be in (0, 1], not {value}")
        if not 0 < self.repetition_penalty < math.inf:
            raise ConfigError(f"generation.repetition_penalty must be above 0, not {self.repetition_penalty}")
        if not math.isfinite(self.length_penalty):
            raise ConfigError(f"generation.length_penalty must be a number, not {self.length_penalty}")

    def _at_least(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if value is not None and value < least:
            raise ConfigError(f"generation.{name} must be at least {least}, not {value}")

    def _check_combinations(self) -> None:
        if self.min_new_tokens > self.max_new_tokens:
            raise ConfigError(
                f"generation.min_new_tokens {self.min_new_tokens} is more than max_new_tokens {self.max_new_tokens}"
            )
        if self.beams > 1 and self.temperature > 0:
            raise ConfigError(
                f"generation.beams {self.beams} and temperature {self.temperature} contradict each other: "
                "a beam search does not sample; set temperature 0 or beams 1"
            )
        if self.n_best > 1 and self.temperature == 0 and self.n_best > self.beams:
            raise ConfigError(
                f"generation.n_best {self.n_best} is more than beams {self.beams}: raise beams, or sample"
            )

    def greedy(self) -> GenerationConfig:
        """The same limits, penalties and bans, but always the likeliest token: no sampling, no search."""
        none = {"top_k": None, "top_p": None, "min_p": None, "typical_p": None}
        return replace(self, temperature=0.0, beams=1, n_best=1, **none)  # type: ignore[arg-type]

    def normalised(self, log_probability: float, length: int) -> float:
        """The score of a hypothesis of ``length`` tokens, the end token included."""
        if self.length_norm == "none":
            return log_probability
        units = length if self.length_norm == "average" else (5 + length) / 6
        return float(log_probability / units**self.length_penalty)
