"""Batched generation with a key-value cache: the one entry to greedy search, sampling and beam search."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.beam import Hypothesis, beam_search
from lightning_nlp.decoding.cached import CachedDecoder, Logits, evaluating, prompt_rows
from lightning_nlp.decoding.config import GenerationConfig
from lightning_nlp.decoding.prepacked import prepacked
from lightning_nlp.decoding.processors import AllowedTokens, Processors, Text, filled
from lightning_nlp.decoding.sampling import next_token
from lightning_nlp.decoding.score import log_probabilities
from lightning_nlp.errors import ConfigError

OnToken = Callable[[list[int | None]], None]


def generate(
    backbone: Transformer, logits: Logits, prompts: list[list[int]], config: GenerationConfig, **options: Any
) -> list[list[int]]:
    """New token ids of each prompt: the tokens of the best of its :func:`hypotheses`, which see for ``options``."""
    found = hypotheses(backbone, logits, prompts, config, scored=config.n_best > 1, **options)
    return [best[0].tokens for best in found]


@torch.no_grad()
def hypotheses(
    backbone: Transformer,
    logits: Logits,
    prompts: list[list[int]],
    config: GenerationConfig,
    *,
    eos_id: int | None,
    pad_id: int,
    bos_id: int | None = None,
    memory: Tensor | None = None,
    memory_segments: Tensor | None = None,
    bidirectional: bool = False,
    prefixes: list[list[int]] | None = None,
    allowed_tokens: AllowedTokens | None = None,
    source: list[list[int]] | None = None,
    on_token: OnToken | None = None,
    scored: bool = True,
) -> list[list[Hypothesis]]:
    """The ``n_best`` continuations of every prompt with their scores, best first.

    Greedily and in beam search, the batch gives what each prompt would give alone. Prompt and new tokens of a row
    together never exceed the backbone's ``max_length``: a longer prompt is cut from the left so that one token fits,
    and a row ends when it is full. It also ends, unfinished, where no token is allowed to follow. The global random
    state is left alone.

    Greedy search and sampling apply penalties to the model's scores, beam search to log-probabilities (which makes a
    difference to the repetition penalty alone).

    Args:
        backbone: a decoder, or an encoder_decoder with ``memory``.
        logits: hidden states ``[N, D]`` to scores ``[N, V]``.
        prompts: token ids.
        config: how to decode.
        eos_id: ends a row; not part of its tokens.
        pad_id: fills up shorter prompts on the left; never looked at.
        bos_id: what an empty prompt starts from.
        memory: ``[B, S, D]`` encoder states; ``memory_segments [B, S]`` marks real tokens with 1, padding (on either
            side) with 0.
        bidirectional: all tokens of a prompt see all of it (prefix language models).
        prefixes: tokens each prompt's continuation begins with, whatever else is banned; part of the result.
        allowed_tokens: ``(number of the prompt, its new tokens)`` to the ids that may follow.
        source: tokens of each source, for ``no_repeat_ngram_scope: source``.
        on_token: called after every step with the new token of each row (None: the row has ended); not for beam
            search, or for several samples.
        scored: False leaves the log-probabilities of greedy search and sampling at 0, which is faster.

    Raises:
        ConfigError: an empty prompt and no ``bos_id``; ``memory`` and arrangement do not fit; prefixes or sources of
            another number than prompts, or a prefix longer than there is room; more beams than the vocabulary has
            tokens; tokens outside of the vocabulary; settings that need an end token or a source without one.
    """
    if not prompts:
        return []
    limit = backbone.config.max_length
    prompts = prompt_rows(prompts, limit, bos_id)
    room = [min(config.max_new_tokens, limit - len(prompt)) for prompt in prompts]
    check_rows(prompts, room, prefixes, source)
    if on_token is not None and (config.beams > 1 or config.n_best > 1):
        raise ConfigError("tokens are announced as they come (on_token) with one beam and one sample only")
    rows = len(prompts) * max(config.beams, config.n_best)
    with evaluating(backbone), prepacked(backbone, rows, max(room)) as packing:
        decoder = CachedDecoder(
            backbone,
            logits,
            prompts,
            pad_id=pad_id,
            steps=max(room),
            memory=memory,
            memory_segments=memory_segments,
            bidirectional=bidirectional,
            around_logits=packing,
        )
        device = decoder.device
        text = Text(
            filled(prompts, device, left=True),
            max(map(len, prompts)),
            torch.arange(len(prompts), device=device),
            [True] * len(prompts),
        )
        counted = None if source is None else filled(source, device)
        processors = Processors(config, eos_id, torch.tensor(room, device=device), counted, prefixes, allowed_tokens)
        if config.beams > 1:
            with decoder.sharing_sources():
                return beam_search(decoder, processors, text, config, eos_id=eos_id, room=room)
        return step_by_step(
            decoder, processors, text, config, eos_id=eos_id, room=room, scored=scored, on_token=on_token
        )


def check_rows(
    prompts: list[list[int]], room: list[int], prefixes: list[list[int]] | None, source: list[list[int]] | None
) -> None:
    """Refuse prefixes and sources that do not fit the prompts."""
    for name, rows in (("prefixes", prefixes), ("source", source)):
        if rows is not None and len(rows) != len(prompts):
            raise ConfigError(f"{name} has {len(rows)} rows for {len(prompts)} prompts")
    for number, prefix in enumerate(prefixes or []):
        if prefix and min(prefix) < 0:
            raise ConfigError(f"the forced prefix of prompt {number} holds token {min(prefix)}")
        if len(prefix) > room[number]:
            raise ConfigError(
                f"the forced prefix of prompt {number} has {len(prefix)} tokens, more than the {room[number]} new ones "
                "it has room for: raise generation.max_new_tokens"
            )


def step_by_step(
    decoder: CachedDecoder,
    processors: Processors,
    text: Text,
    config: GenerationConfig,
    *,
    eos_id: int | None,
    room: list[int],
    scored: bool,
    on_token: OnToken | None,
) -> list[list[Hypothesis]]:
    """Greedy search and sampling: one token after the other, ``n_best`` times for every prompt.

    Args:
        decoder: has read nothing yet.
        text: the prompts, ``[B, L]``.
        room: new tokens each prompt has room for.
        scored: work out log-probabilities; otherwise they are 0.
        on_token: see :func:`hypotheses`.
    """
    generator = torch.Generator(decoder.device)
    if config.seed is None:
        generator.seed()
    else:
        generator.manual_seed(config.seed)
    scores = decoder.first()
    copies, count = config.n_best, len(room) * config.n_best
    if copies > 1:
        rows = torch.arange(len(room), device=scores.device).repeat_interleave(copies)
        decoder.select(rows)
        text.tokens, text.owners, text.alive = text.tokens[rows], rows, [True] * count
        scores = scores[rows]
    live = list(range(count))  # the text each row of the batch continues
    found: list[list[int]] = [[] for _ in live]
    totals, ended = [0.0] * count, [False] * count
    alive = [True] * count
    for step in range(1, max(room) + 1):
        usable, chosen = None, scores
        if processors:
            chosen = processors(scores.to(torch.promote_types(scores.dtype, torch.float32)), text)
            usable = chosen.amax(-1) > -math.inf
            chosen = torch.where(usable[:, None], chosen, scores)
        new = next_token(chosen, config, generator)
        tokens = new.tolist()
        values = log_probabilities(scores, new).tolist() if scored else [0.0] * len(tokens)
        possible = [True] * len(tokens) if usable is None else usable.tolist()
        fresh: list[int | None] = [None] * count
        for number, token, value, allowed in zip(live, tokens, values, possible, strict=True):
            if not alive[number] or not allowed:
                alive[number] = False
                continue
            totals[number] += value
            if token == eos_id:
                alive[number], ended[number] = False, True
                continue
            fresh[number] = token
            found[number].append(token)
            alive[number] = step < room[number // copies]
        if on_token is not None:
            on_token(fresh)
        going = [row for row, number in enumerate(live) if alive[number]]
        if not going:
            break
        if 4 * len(going) <= 3 * len(live):  # what has ended costs as much as what has not
            rows = torch.tensor(going, device=scores.device)
            decoder.select(rows)
            live, new = [live[row] for row in going], new[rows]
        else:
            rows = torch.arange(len(live), device=scores.device)
        if processors:
            text.select(rows, new)
            text.alive = [alive[number] for number in live]
        scores = decoder.next(new)
    results = [
        Hypothesis(tokens, config.normalised(total, max(len(tokens) + end, 1)), total, end)
        for tokens, total, end in zip(found, totals, ended, strict=True)
    ]
    groups = [results[start : start + copies] for start in range(0, count, copies)]
    return [sorted(group, key=lambda hypothesis: -hypothesis.score) for group in groups]
