"""Changes to scores before a token is chosen: penalties, bans, forced tokens. One small class each.

Greedy search and sampling hand in the model's scores, beam search their log-softmax; nothing is normalised again, so
a token that stays allowed keeps its own probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.errors import ConfigError

AllowedTokens = Callable[[int, list[int]], list[int]]
"""(number of the prompt, its new tokens) to the ids that may come next; none ends the text there."""


@dataclass
class Text:
    """What the rows of a batch hold so far."""

    tokens: Tensor
    """``[R, L]``: prompt and new tokens; -1 is padding on the left."""
    prompt: int
    """Columns before the new tokens."""
    owners: Tensor
    """``[R]``: the prompt each row continues."""
    alive: list[bool]
    """Rows that have not ended; the scores of others are of no consequence."""

    @property
    def new(self) -> int:
        """New tokens of every row."""
        return self.tokens.shape[1] - self.prompt

    def select(self, rows: Tensor, tokens: Tensor) -> None:
        """Row r becomes row ``rows[r]`` followed by ``tokens[r]``; both ``[R']``."""
        self.tokens = torch.cat((self.tokens[rows], tokens[:, None]), dim=1)
        self.owners = self.owners[rows]


def filled(rows: list[list[int]], device: torch.device, left: bool = False) -> Tensor:
    """Lists of tokens as ``[B, longest]``, filled up with -1 on the right or on the left."""
    longest = max(map(len, rows), default=0)
    padding = [[-1] * (longest - len(row)) for row in rows]
    pairs = zip(padding, rows, strict=True) if left else zip(rows, padding, strict=True)
    return torch.tensor([first + second for first, second in pairs], dtype=torch.long, device=device)


class Processor(Protocol):
    """Scores ``[R, V]`` and the text so far to scores ``[R, V]``; may write into the scores it is given."""

    def __call__(self, scores: Tensor, text: Text) -> Tensor: ...


@dataclass(frozen=True)
class RepetitionPenalty:
    """Scores of tokens seen before are divided by the penalty where positive, multiplied where negative."""

    penalty: float

    def __call__(self, scores: Tensor, text: Text) -> Tensor:
        seen = torch.where(text.tokens < 0, text.tokens[:, -1:], text.tokens)
        old = scores.gather(1, seen)
        return scores.scatter_(1, seen, torch.where(old < 0, old * self.penalty, old / self.penalty))


@dataclass(frozen=True)
class NoRepeatNgram:
    """Bans a token that would complete an n-gram for the second time.

    ``source [B, S]``, filled up with -1, holds texts whose n-grams count as well.
    """

    size: int
    with_prompt: bool
    source: Tensor | None = None

    def __call__(self, scores: Tensor, text: Text) -> Tensor:
        tokens = text.tokens if self.with_prompt else text.tokens[:, text.prompt :]
        last = text.tokens[:, text.tokens.shape[1] - (self.size - 1) :]
        if last.shape[1] < self.size - 1:
            return scores
        self._ban(scores, tokens, last)
        if self.source is not None:
            self._ban(scores, self.source[text.owners], last)
        return scores

    def _ban(self, scores: Tensor, tokens: Tensor, last: Tensor) -> None:
        if tokens.shape[1] < self.size:
            return
        ngrams = tokens.unfold(1, self.size, 1)  # [R, L - n + 1, n]
        begun = (ngrams[:, :, :-1] == last[:, None]).all(-1) & (ngrams >= 0).all(-1)
        rows, places = begun.nonzero(as_tuple=True)
        scores[rows, ngrams[rows, places, -1]] = -math.inf


class BadWords:
    """Bans the last token of every listed sequence where the others stand before it."""

    def __init__(self, words: list[list[int]], device: torch.device) -> None:
        lengths = sorted({len(word) for word in words})
        grouped = [torch.tensor([word for word in words if len(word) == n], device=device) for n in lengths]
        self.groups = [(group[:, :-1], group[:, -1]) for group in grouped]

    def __call__(self, scores: Tensor, text: Text) -> Tensor:
        length = text.tokens.shape[1]
        for before, last in self.groups:
            if before.shape[1] <= length:
                here = text.tokens[:, None, length - before.shape[1] :]
                rows, words = (here == before).all(-1).nonzero(as_tuple=True)
                scores[rows, last[words]] = -math.inf
        return scores


@dataclass(frozen=True)
class MinLength:
    """No end token among the first ``least`` new ones."""

    least: int
    eos_id: int

    def __call__(self, scores: Tensor, text: Text) -> Tensor:
        if text.new < self.least:
            scores[:, self.eos_id] = -math.inf
        return scores


@dataclass(frozen=True)
class OnlyAllowed:
    """Only the tokens that a function allows."""

    allowed: AllowedTokens

    def __call__(self, scores: Tensor, text: Text) -> Tensor:
        kept = torch.full_like(scores, -math.inf)
        new, vocabulary = text.tokens[:, text.prompt :].tolist(), scores.shape[1]
        for row, owner in enumerate(text.owners.tolist()):
            if text.alive[row]:
                tokens = list(self.allowed(owner, new[row]))
                if tokens and not 0 <= min(tokens) <= max(tokens) < vocabulary:
                    raise ConfigError(f"allowed_tokens gave a token that is not in the vocabulary of {vocabulary}")
                if tokens:
                    kept[row, tokens] = scores[row, tokens]
        return kept


class Processors:
    """All that one call of generate asks for, in a fixed order; forced ends, then forced prefixes, overrule the rest.

    Args:
        config: penalties, bans and lengths.
        eos_id: the end token, if there is one.
        room: new tokens each prompt has room for, ``[B]``.
        source: ``[B, S]``, filled up with -1, for n-grams of the source.
        prefixes: what each prompt's new tokens begin with.
        allowed: what may come next.

    Raises:
        ConfigError: ``force_eos`` without an end token; source n-grams without a source.
    """

    def __init__(
        self,
        config: GenerationConfig,
        eos_id: int | None,
        room: Tensor,
        source: Tensor | None = None,
        prefixes: list[list[int]] | None = None,
        allowed: AllowedTokens | None = None,
    ) -> None:
        self.steps: list[Processor] = []
        if config.repetition_penalty != 1.0:
            self.steps.append(RepetitionPenalty(config.repetition_penalty))
        if config.no_repeat_ngram_size:
            scope = config.no_repeat_ngram_scope
            if scope == "source" and source is None:
                raise ConfigError("generation.no_repeat_ngram_scope is source, but no source tokens were given")
            counted = source if scope == "source" else None
            self.steps.append(NoRepeatNgram(config.no_repeat_ngram_size, scope != "new", counted))
        if config.bad_words:
            self.steps.append(BadWords(config.bad_words, room.device))
        if config.min_new_tokens and eos_id is not None:
            self.steps.append(MinLength(config.min_new_tokens, eos_id))
        if config.force_eos and eos_id is None:
            raise ConfigError("generation.force_eos needs an end token, and there is none")
        self.end, self.room = eos_id if config.force_eos else None, room
        if allowed is not None:
            self.steps.append(OnlyAllowed(allowed))
        self.forced = filled(prefixes, room.device) if prefixes is not None and any(prefixes) else None
        self.highest = max(
            (token for row in [*(config.bad_words or []), *(prefixes or [])] for token in row), default=-1
        )

    def __bool__(self) -> bool:
        return bool(self.steps) or self.forced is not None or self.end is not None

    def __call__(self, scores: Tensor, text: Text) -> Tensor:
        """Processed copy of ``scores [R, V]``.

        Raises:
            ConfigError: a token of bad words or prefixes is not in the vocabulary.
        """
        if self.highest >= scores.shape[1]:
            raise ConfigError(
                f"token {self.highest} of bad words or prefixes is not in the vocabulary of {scores.shape[1]}"
            )
        found = scores.clone()
        for step in self.steps:
            found = step(found, text)
        if self.end is not None:
            full = (self.room[text.owners] - text.new <= 1).nonzero().flatten()
            force(found, scores, full, torch.full_like(full, self.end))
        if self.forced is not None and text.new < self.forced.shape[1]:
            wanted = self.forced[text.owners, text.new]
            rows = (wanted >= 0).nonzero().flatten()
            force(found, scores, rows, wanted[rows])
        return found


def force(processed: Tensor, scores: Tensor, rows: Tensor, tokens: Tensor) -> None:
    """Leave ``rows`` of ``processed [R, V]`` nothing but one token each, at the model's own score."""
    processed[rows] = -math.inf
    processed[rows, tokens] = scores[rows, tokens]
