"""Batched generation with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_nlp.backbone.positions import positions_of
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.sampling import GenerationConfig, next_token
from lightning_nlp.errors import ConfigError


@torch.no_grad()
def generate(
    backbone: Transformer,
    logits: Callable[[Tensor], Tensor],
    prompts: list[list[int]],
    config: GenerationConfig,
    *,
    eos_id: int | None,
    pad_id: int,
    memory: Tensor | None = None,
    memory_segments: Tensor | None = None,
    on_token: Callable[[list[int | None]], None] | None = None,
) -> list[list[int]]:
    """Continue every prompt; the batch gives what each prompt would give alone.

    A prompt too long for the backbone is cut from the left so that one token fits; generation ends at ``max_length``.
    The global random state is left alone.

    Args:
        backbone: a decoder, or an encoder_decoder with ``memory``.
        logits: hidden states ``[B, D]`` to scores ``[B, V]``.
        prompts: token ids; each at least one.
        eos_id: ends a row; not part of the result.
        pad_id: fills up shorter prompts on the left.
        memory: ``[B, S, D]`` encoder states; ``memory_segments [B, S]`` marks padding with 0.
        on_token: called after every step with the new token of each row (None: the row has ended).

    Returns:
        New token ids of each prompt.

    Raises:
        ConfigError: an empty prompt.
    """
    if not prompts:
        return []
    if not all(prompts):
        raise ConfigError("a prompt is empty: give at least a start token")
    device = backbone.token_embedding.weight.device
    limit = backbone.config.max_length
    prompts = [prompt[-(limit - 1) :] if len(prompt) >= limit else prompt for prompt in prompts]
    longest = max(len(prompt) for prompt in prompts)
    steps = min(config.max_new_tokens, limit - longest)
    rows = [[pad_id] * (longest - len(prompt)) + prompt for prompt in prompts]
    tokens = torch.tensor(rows, device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    segments = (torch.arange(longest, device=device) >= (longest - lengths)[:, None]).long()
    positions = positions_of(segments, len(prompts), longest, 0, device)
    generator = torch.Generator(device)
    if config.seed is None:
        generator.seed()
    else:
        generator.manual_seed(config.seed)
    cache = backbone.new_cache(len(prompts), longest + steps)
    found: list[list[int]] = [[] for _ in prompts]
    alive = [True] * len(prompts)
    training = backbone.training
    backbone.eval()
    try:
        for step in range(steps):
            context = {} if memory is None else {"memory": memory, "source_segments": memory_segments}
            hidden = backbone(tokens, positions=positions, segments=segments, cache=cache, **context)
            new = next_token(logits(hidden[:, -1]), config, generator)
            fresh: list[int | None] = []
            for row, token in enumerate(new.tolist()):
                alive[row] = alive[row] and token != eos_id
                fresh.append(token if alive[row] else None)
                if alive[row]:
                    found[row].append(token)
            if on_token is not None:
                on_token(fresh)
            if not any(alive):
                break
            tokens, segments = new[:, None], torch.ones_like(new)[:, None]
            positions = (lengths + step)[:, None]
    finally:
        backbone.train(training)
    return found
