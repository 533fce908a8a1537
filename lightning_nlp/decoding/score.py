"""How likely given texts are: forced decoding."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nlp.backbone.positions import positions_of
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.cached import Logits, evaluating
from lightning_nlp.errors import ConfigError

CHUNK = 256
"""Tokens whose scores of the whole vocabulary are in memory at a time."""


@torch.no_grad()
def score(
    backbone: Transformer,
    logits: Logits,
    prompts: list[list[int]],
    continuations: list[list[int]],
    *,
    pad_id: int,
    bos_id: int | None = None,
    memory: Tensor | None = None,
    memory_segments: Tensor | None = None,
    bidirectional: bool = False,
) -> list[list[float]]:
    """Log-probability (nats) of every token of each continuation, given its prompt and the tokens before it.

    A text too long for the model loses the beginning of its prompt, as in generation. The sum over a hypothesis with
    its end token is its ``log_probability``.

    Args:
        continuations: token ids, with the end token where it counts; may be empty.
        pad_id: fills up shorter rows on the right; never looked at.
        backbone, logits, prompts, bos_id, memory, memory_segments, bidirectional: as for generation.

    Raises:
        ConfigError: an empty prompt and no ``bos_id``; another number of continuations than of prompts, or one as
            long as the model.
    """
    if len(prompts) != len(continuations):
        raise ConfigError(f"{len(prompts)} prompts have {len(continuations)} continuations: one each is needed")
    if not prompts:
        return []
    if bos_id is None and not all(prompts):
        raise ConfigError("a prompt is empty and there is no start token: give some text")
    limit, longest = backbone.config.max_length, max(map(len, continuations))
    if longest > limit:
        raise ConfigError(f"a continuation of {longest} tokens is longer than backbone.max_length {limit}")
    device = backbone.token_embedding.weight.device
    rows, places, prompt_lengths = [], [], []
    for number, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True)):
        begin = (prompt or [bos_id or 0])[-max(min(limit - 1, limit + 1 - len(continuation)), 1) :]
        rows.append([*begin, *continuation[:-1]])
        prompt_lengths.append(len(begin))
        places += [(number, len(begin) - 1 + place) for place in range(len(continuation))]
    width = max(map(len, rows))
    lengths = torch.tensor([len(row) for row in rows], device=device)
    tokens = torch.tensor([row + [pad_id] * (width - len(row)) for row in rows], device=device)
    columns = torch.arange(width, device=device)
    segments = (columns < lengths[:, None]).long()
    source: dict[str, Tensor | None] = {} if memory is None else {"memory": memory, "source_segments": memory_segments}
    if bidirectional:
        source["prefix_mask"] = columns < torch.tensor(prompt_lengths, device=device)[:, None]
    with evaluating(backbone):
        hidden = backbone(tokens, positions=positions_of(segments), segments=segments, **source)
        wanted = torch.tensor(places, dtype=torch.long, device=device).view(-1, 2)
        hidden = hidden[wanted[:, 0], wanted[:, 1]]
        labels = torch.tensor([token for row in continuations for token in row], dtype=torch.long, device=device)
        values: list[float] = []
        for part, targets in zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True):
            values += log_probabilities(logits(part), targets).tolist()
    found = iter(values)
    return [[next(found) for _ in continuation] for continuation in continuations]


def log_probabilities(scores: Tensor, tokens: Tensor) -> Tensor:
    """Log-softmax of ``scores [R, V]`` at ``tokens [R]``: ``[R]``, in at least float32."""
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    return scores.gather(1, tokens[:, None])[:, 0] - scores.logsumexp(-1)
