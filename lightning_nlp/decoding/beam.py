"""Beam search: the likeliest texts among those that start likely."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_nlp.decoding.cached import CachedDecoder
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.processors import Processors, Text
from lightning_nlp.decoding.sampling import highest
from lightning_nlp.errors import ConfigError


@dataclass(frozen=True)
class Hypothesis:
    """One text for a prompt."""

    tokens: list[int]
    """New tokens, without the end token."""
    score: float
    """What texts are ranked by: the log-probability after length norm and penalties."""
    log_probability: float
    """Of the new tokens, the end token included, under the model itself (nats)."""
    finished: bool
    """It ends with the end token; otherwise it was cut, or nothing was allowed to follow."""


@dataclass(frozen=True)
class Link:
    """The last token of a hypothesis, and the one before it."""

    token: int
    before: Link | None

    def tokens(self) -> list[int]:
        """All of them in order."""
        found, link = [], self
        while link is not None:
            found.append(link.token)
            link = link.before  # type: ignore[assignment]
        return found[::-1]


@dataclass
class Beam:
    """An open hypothesis, in one row of the batch."""

    total: float
    """Log-probability with penalties; -inf: nothing lives in this row."""
    model_total: float
    text: Link | None = None


DEAD = Beam(-math.inf, -math.inf)


@dataclass
class Search:
    """The search for one prompt.

    At every step the ``2 * beams`` best continuations of all beams are looked at: among the first ``beams`` of them
    those with the end token are finished; the best ``beams`` of the others go on.
    """

    config: GenerationConfig
    eos_id: int | None
    room: int
    beams: list[Beam]
    finished: list[Hypothesis] = field(default_factory=list)
    done: bool = False

    def finish(self, beam: Beam, length: int, ended: bool) -> None:
        """Note a text of ``length`` tokens, the end token included."""
        tokens = beam.text.tokens() if beam.text is not None else []
        score = self.config.normalised(beam.total, length)
        self.finished.append(Hypothesis(tokens, score, beam.model_total, ended))

    def step(self, length: int, width: int, best: list[tuple[float, float, int, int]]) -> list[int]:
        """Take continuations (see :func:`candidates`), best first, that make texts of ``length`` tokens.

        Returns:
            The beam each of the ``width`` new ones goes on from.
        """
        children: list[tuple[int, Beam]] = []
        for rank, (total, value, parent, token) in enumerate([] if self.done else best):
            if total == -math.inf:
                break
            before = self.beams[parent]
            model_total = before.model_total + value
            if token == self.eos_id:
                if rank < width:
                    self.finish(Beam(total, model_total, before.text), length, True)
            elif length == self.room:
                if rank < width:
                    self.finish(Beam(total, model_total, Link(token, before.text)), length, False)
            elif len(children) < width:
                children.append((parent, Beam(total, model_total, Link(token, before.text))))
        if not children and not self.finished:
            for beam in self.beams:  # nothing is allowed any more: texts end as they are
                if beam.total > -math.inf:
                    self.finish(beam, max(length - 1, 1), False)
        self.finished.sort(key=lambda hypothesis: -hypothesis.score)
        del self.finished[width:]
        origins = self._place(children, width)
        self.done = not children or self._cannot_improve(length)
        return origins

    def _place(self, children: list[tuple[int, Beam]], width: int) -> list[int]:
        """Give each child a row, its parent's own where it is free: what stays need not be copied."""
        rows: dict[int, tuple[int, Beam]] = {}
        homeless, last = [], len(self.beams) - 1
        for parent, beam in children:
            if parent in rows:
                homeless.append((parent, beam))
            else:
                rows[parent] = parent, beam
        free = (row for row in range(width) if row not in rows)
        taken = {row: child for row, child in zip(free, homeless, strict=False)}
        rows |= taken
        self.beams = [rows[row][1] if row in rows else DEAD for row in range(width)]
        return [rows[row][0] if row in rows else min(row, last) for row in range(width)]

    def _cannot_improve(self, length: int) -> bool:
        if len(self.finished) < len(self.beams):
            return False
        if self.config.stop == "finished":
            return True
        longer = self.config.stop == "never" and self.config.length_penalty > 0
        best = max(beam.total for beam in self.beams)
        return self.config.normalised(best, self.room if longer else length) <= self.finished[-1].score


def candidates(
    scores: Tensor, processors: Processors, text: Text, totals: Tensor, count: int
) -> list[list[tuple[float, float, int, int]]]:
    """The best ``count`` continuations of each prompt: ``(total, token's log-probability, parent, token)``.

    Args:
        scores: ``[P * group, V]`` of the model.
        totals: ``[P, group]`` of the beams so far.
    """
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    model = scores.log_softmax(-1)
    values, tokens = highest(processors(model, text) if processors else model, min(count, scores.shape[1]))
    model_values = model.gather(1, tokens) if processors else values
    prompts, group = totals.shape
    sums = (values.view(prompts, group, -1) + totals.to(values)[:, :, None]).flatten(1)
    best, places = sums.topk(min(count, sums.shape[1]))
    model_values, tokens = (x.view(prompts, -1).gather(1, places) for x in (model_values, tokens))
    columns = (x.tolist() for x in (best, model_values, places // values.shape[1], tokens))
    return [list(zip(*row, strict=True)) for row in zip(*columns, strict=True)]


def beam_search(
    decoder: CachedDecoder,
    processors: Processors,
    text: Text,
    config: GenerationConfig,
    *,
    eos_id: int | None,
    room: list[int],
) -> list[list[Hypothesis]]:
    """The ``n_best`` texts for each prompt, best first; fewer where fewer could be made.

    Args:
        decoder: has read nothing yet.
        text: the prompts, ``[B, L]``.
        room: new tokens each prompt has room for.

    Raises:
        ConfigError: more beams than tokens in the vocabulary.
    """
    width = config.beams
    searches = [Search(config, eos_id, most, [Beam(0.0, 0.0)]) for most in room]
    live = searches
    scores = decoder.first()
    if width > scores.shape[1]:
        raise ConfigError(f"generation.beams {width} is more than the vocabulary of {scores.shape[1]}")
    for length in range(1, max(room) + 1):
        group = len(live[0].beams)
        totals = torch.tensor([[beam.total for beam in search.beams] for search in live], dtype=torch.float64)
        found = candidates(scores, processors, text, totals, 2 * width)
        origins = [search.step(length, width, best) for search, best in zip(live, found, strict=True)]
        going = [number for number, search in enumerate(live) if not search.done]
        if not going:
            break
        drops = 4 * len(going) <= 3 * len(live)
        kept = going if drops else list(range(len(live)))
        rows = [number * group + origin for number in kept for origin in origins[number]]
        live = [live[number] for number in kept]
        beams = [beam for search in live for beam in search.beams]
        tokens = torch.tensor([0 if beam.text is None else beam.text.token for beam in beams], device=scores.device)
        if drops or group != width:
            decoder.select(torch.tensor(rows, device=scores.device), width)
        else:
            decoder.move(rows)
        if processors:
            text.select(torch.tensor(rows, device=scores.device), tokens)
            text.alive = [beam.total > -math.inf for beam in beams]
        scores = decoder.next(tokens)
    return [search.finished[: config.n_best] for search in searches]
