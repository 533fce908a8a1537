"""Batched generation with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.positions import positions_of
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.decoding.sampling import GenerationConfig, next_token
from lightning_nlp.errors import ConfigError


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every sub-module returns to the mode it had."""
    training = [child for child in module.modules() if child.training]
    module.eval()
    try:
        yield
    finally:
        for child in training:
            child.training = True


def prompt_rows(prompts: list[list[int]], max_length: int, bos_id: int | None) -> list[list[int]]:
    """Prompts that a model of ``max_length`` positions can continue by at least one token, cut from the left.

    Raises:
        ConfigError: an empty prompt and no ``bos_id``; a model too short to continue anything.
    """
    if max_length < 2:
        raise ConfigError(f"backbone.max_length {max_length} has no room for a prompt and a new token")
    if bos_id is None and not all(prompts):
        raise ConfigError("a prompt is empty and there is no start token: give some text")
    return [(prompt or [bos_id or 0])[-(max_length - 1) :] for prompt in prompts]


@torch.no_grad()
def generate(
    backbone: Transformer,
    logits: Callable[[Tensor], Tensor],
    prompts: list[list[int]],
    config: GenerationConfig,
    *,
    eos_id: int | None,
    pad_id: int,
    bos_id: int | None = None,
    memory: Tensor | None = None,
    memory_segments: Tensor | None = None,
    on_token: Callable[[list[int | None]], None] | None = None,
) -> list[list[int]]:
    """Continue every prompt; greedily, the batch gives what each prompt would give alone.

    Prompt and new tokens of a row together never exceed the backbone's ``max_length``: a longer prompt is cut from the
    left so that one token fits, and a row ends when it is full. The global random state is left alone.

    Args:
        backbone: a decoder, or an encoder_decoder with ``memory``.
        logits: hidden states ``[B, D]`` to scores ``[B, V]``.
        prompts: token ids.
        eos_id: ends a row; not part of the result.
        pad_id: fills up shorter prompts on the left; never looked at.
        bos_id: what an empty prompt starts from.
        memory: ``[B, S, D]`` encoder states; ``memory_segments [B, S]`` marks real tokens with 1, padding with 0.
        on_token: called after every step with the new token of each row (None: the row has ended).

    Returns:
        New token ids of each prompt.

    Raises:
        ConfigError: an empty prompt and no ``bos_id``; ``memory`` and arrangement do not fit.
    """
    if not prompts:
        return []
    device, limit = backbone.token_embedding.weight.device, backbone.config.max_length
    prompts = prompt_rows(prompts, limit, bos_id)
    room = [min(config.max_new_tokens, limit - len(prompt)) for prompt in prompts]
    longest, steps = max(map(len, prompts)), max(room)
    tokens = torch.tensor([[pad_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    segments: Tensor | None = None
    positions: Tensor | None = None
    if int(lengths.min()) < longest:
        segments = (torch.arange(longest, device=device) >= (longest - lengths)[:, None]).long()
        positions = positions_of(segments)
    generator = torch.Generator(device)
    if config.seed is None:
        generator.seed()
    else:
        generator.manual_seed(config.seed)
    cache = backbone.new_cache(len(prompts), longest + steps - 1)
    found: list[list[int]] = [[] for _ in prompts]
    alive = [True] * len(prompts)
    source = {} if memory is None else {"memory": memory, "source_segments": memory_segments}
    with evaluating(backbone):
        for step in range(steps):
            hidden = backbone(tokens, positions=positions, segments=segments, cache=cache, **source)
            new = next_token(logits(hidden[:, -1]), config, generator)
            fresh: list[int | None] = []
            for row, token in enumerate(new.tolist()):
                takes = alive[row] and token != eos_id
                fresh.append(token if takes else None)
                if takes:
                    found[row].append(token)
                alive[row] = takes and len(found[row]) < room[row]
            if on_token is not None:
                on_token(fresh)
            if not any(alive):
                break
            going = torch.tensor(alive, device=device)
            # Rows that have ended go on as padding: their positions would leave the model's range.
            segments = going.long()[:, None] if cache.segments is not None or not all(alive) else None
            positions = ((lengths + step) * going)[:, None]
            tokens = new[:, None]
    return found
