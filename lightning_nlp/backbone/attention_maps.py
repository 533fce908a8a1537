"""Attention weights of a forward pass, for looking at: kernels do not give them, so they are computed once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_nlp.backbone.attention import Scoring, reference
from lightning_nlp.backbone.block import Attention, CrossAttention
from lightning_nlp.backbone.transformer import Transformer


@dataclass
class AttentionMap:
    """Who looked where in one layer."""

    stack: Literal["encoder", "decoder"]
    kind: Literal["self", "cross"]
    layer: int
    """From 0."""
    layers: int
    """Of the stack."""
    weights: Tensor
    """float32 ``[B, H, T, S]``; rows sum to 1, or to 0 for a query that sees nothing."""


@contextmanager
def recorded(backbone: Transformer) -> Iterator[list[AttentionMap]]:
    """While it lasts, every attention of ``backbone`` adds its weights to the list; its output stays the same.

    They take ``B H T S`` numbers a layer: give few rows. Of Longformer's layers, global tokens are as the window sees
    them. Blocks that are compiled run as they are written.
    """
    found: list[AttentionMap] = []
    modules: list[Attention] = []
    for stack in ("encoder", "decoder"):
        layers = getattr(getattr(backbone, stack), "layers", [])
        for number, block in enumerate(layers):
            for module in block.modules():
                if isinstance(module, Attention):
                    kind = "cross" if isinstance(module, CrossAttention) else "self"
                    module.mix = watching(module, found, (stack, kind, number, len(layers)))  # type: ignore[method-assign]
                    modules.append(module)
    stance = torch.compiler.set_stance("force_eager")
    try:
        with stance:
            yield found
    finally:
        for module in modules:
            del module.mix


def watching(module: Attention, found: list[AttentionMap], place: tuple[Any, Any, int, int]) -> Callable[..., Tensor]:
    """``module.mix`` that also keeps the weights of its first call."""
    mix = module.mix

    def kept(query: Tensor, key: Tensor, value: Tensor, mask: Any, bias: Any) -> Tensor:
        if not any((one.stack, one.kind, one.layer) == place[:3] for one in found):
            # Weights are what comes out where the values are the rows of a unit matrix.
            unit = torch.eye(key.shape[2], dtype=query.dtype, device=query.device).expand(*key.shape[:2], -1, -1)
            scoring = Scoring(module.scale, module.softcap, module.score_vector, bias)
            weights = reference(query.detach(), key.detach(), unit, mask, scoring=scoring)
            found.append(AttentionMap(*place, weights.detach().float()))
        return mix(query, key, value, mask, bias)

    return kept
