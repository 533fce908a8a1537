"""Feeding a backbone token by token: one cache, one rule for positions and padding, whatever chooses the tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.block import CrossAttention
from lightning_nlp.backbone.cache import KVCache
from lightning_nlp.backbone.masks import AttentionMask
from lightning_nlp.backbone.positions import positions_of
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.errors import ConfigError

Logits = Callable[[Tensor], Tensor]
"""Hidden states ``[N, D]`` to scores ``[N, V]``."""


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


class CachedDecoder:
    """Rows of a batch, each continuing a prompt; keys and values of what was read stay in a cache.

    Shorter prompts are padded on the left, where segment 0 hides the padding and positions are counted without it. A
    row that has ended may be fed anything: its positions stop at the model's last one.

    Args:
        backbone: a decoder, or an encoder_decoder with ``memory``.
        prompts: non-empty token ids, each shorter than the model's ``max_length``.
        pad_id: what padding is filled with; never looked at.
        steps: new tokens at most.
        bidirectional: all tokens of a prompt see all of it (prefix language models).
        around_logits: a context in which ``logits`` is called, again and again.
        memory: ``[B, S, D]`` encoder states; ``memory_segments [B, S]`` marks real tokens with 1, padding with 0.
    """

    def __init__(
        self,
        backbone: Transformer,
        logits: Logits,
        prompts: list[list[int]],
        *,
        pad_id: int,
        steps: int,
        memory: Tensor | None = None,
        memory_segments: Tensor | None = None,
        bidirectional: bool = False,
        around_logits: AbstractContextManager[Any] | None = None,
    ) -> None:
        self.backbone, self.logits, self.bidirectional = backbone, logits, bidirectional
        self.around_logits = nullcontext() if around_logits is None else around_logits
        self.device: torch.device = backbone.token_embedding.weight.device
        self.last_position = backbone.config.max_length - 1
        longest = max(map(len, prompts))
        self.prompts = torch.tensor(
            [[pad_id] * (longest - len(prompt)) + prompt for prompt in prompts], device=self.device
        )
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        self.real = torch.arange(longest, device=self.device) >= (longest - lengths)[:, None]
        self.positions = lengths[:, None] if min(map(len, prompts)) < longest else None
        self.cache = backbone.new_cache(len(prompts), longest + steps - 1)
        if memory_segments is not None and bool((memory_segments == 1).all()):
            memory_segments = None  # nothing to hide: kernels need no mask
        if memory is not None and memory_segments is None and self.positions is not None:
            memory_segments = torch.ones(memory.shape[:2], dtype=torch.long, device=self.device)
        self.memory, self.memory_segments = memory, memory_segments
        self.width = 1

    def first(self) -> Tensor:
        """Read the prompts; scores ``[B, V]`` of what follows them."""
        segments = None if self.positions is None else self.real.long()
        prefix = {"prefix_mask": self.real} if self.bidirectional else {}
        return self._read(self.prompts, None if segments is None else positions_of(segments), segments, **prefix)

    def next(self, tokens: Tensor) -> Tensor:
        """Read one more token a row, ``[R]``; scores ``[R, V]`` of what follows."""
        if self.positions is None:
            return self._read(tokens[:, None], None, None)
        positions = self.positions.clamp(max=self.last_position)
        self.positions = self.positions + 1
        return self._read(tokens[:, None], positions, None)

    def _read(self, tokens: Tensor, positions: Tensor | None, segments: Tensor | None, **prefix: Tensor) -> Tensor:
        source = {} if self.memory is None else {"memory": self.memory, "source_segments": self.memory_segments}
        hidden = self.backbone(tokens, positions=positions, segments=segments, cache=self.cache, **source, **prefix)
        with self.around_logits:
            return self.logits(hidden[:, -1])

    def select(self, rows: Tensor, width: int = 1) -> None:
        """Row r goes on from what was row ``rows[r]``, for ``rows [R']``: rows multiply, or are dropped.

        ``width`` neighbouring rows continue the same prompt. Under :meth:`sharing_sources`, more than one have one copy
        of their source.
        """
        cross, self.cache.cross = self.cache.cross, {}
        self.cache.reorder(rows)
        self.positions = None if self.positions is None else self.positions[rows]
        sources = rows[::width] // self.width
        self.cache.cross = {layer: (key[sources], value[sources]) for layer, (key, value) in cross.items()}
        self.memory = None if self.memory is None else self.memory[sources]
        self.memory_segments = None if self.memory_segments is None else self.memory_segments[sources]
        self.width = width
        queries = torch.ones(len(sources), width, dtype=torch.long, device=self.device)
        hidden = self.memory_segments is not None
        self.source_mask = AttentionMask(False, queries if hidden else None, self.memory_segments, cross=True)

    def move(self, rows: list[int]) -> None:
        """:meth:`select` of as many rows, each from the same prompt: sources and positions stay."""
        if rows != list(range(len(rows))):
            cross, self.cache.cross = self.cache.cross, {}
            self.cache.reorder(torch.tensor(rows, device=self.device))
            self.cache.cross = cross

    @contextmanager
    def sharing_sources(self) -> Iterator[None]:
        """Cross-attention reads the keys and values of a source once for all the rows that share it."""
        layers = [layer for layer in self.backbone.modules() if isinstance(layer, CrossAttention)]
        for layer in layers:
            vars(layer)["forward"] = partial(self._read_source, layer.forward)
        try:
            yield
        finally:
            for layer in layers:
                del vars(layer)["forward"]

    def _read_source(
        self, attention: Callable[..., Tensor], x: Tensor, memory: Tensor, mask: AttentionMask, cache: KVCache
    ) -> Tensor:
        """Rows of one source as its queries: what a query sees does not depend on the others."""
        if self.width == 1:
            return attention(x, memory, mask, cache)
        grouped = x.reshape(-1, self.width, x.shape[-1])
        return attention(grouped, memory, self.source_mask, cache).reshape(x.shape)
