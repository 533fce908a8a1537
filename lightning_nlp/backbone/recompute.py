"""Activation checkpointing: what a block computed is forgotten, and computed again in the backward pass.

``full`` keeps a block's input alone (Chen et al. 2016): the memory of one block instead of all, for one more forward
pass. ``selective`` keeps the outputs of its matrix products as well, and computes again what is cheap and large: norms,
activations, and attention where no fused kernel holds it (Korthikanti et al. 2022).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from lightning_nlp.backbone.block import Block, Places
from lightning_nlp.backbone.masks import AttentionMask

Kind = Literal["selective", "full"]
aten = torch.ops.aten
KEPT = {
    aten.mm.default,
    aten.addmm.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_cudnn_attention.default,
}
KERNELS = ("torch_attn._varlen_attn", "flex_attention")
"""Of attention, which are registered when they are first asked for."""


def policy(context: Any, operation: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Keep matrix products of weights, and fused attention."""
    keep = operation in KEPT or str(operation).startswith(KERNELS)
    return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE


def recompute(block: Block, kind: Kind) -> None:
    """Let ``block`` forget while it trains; names in the state dict stay as they are."""
    forward = block.forward
    more: dict[str, Any] = (
        {} if kind == "full" else {"context_fn": partial(create_selective_checkpoint_contexts, policy)}
    )

    def again(x: Tensor, mask: AttentionMask, places: Places, *rest: Any) -> Tensor:
        # What a bias keeps for the next layer would be made in one pass and found in the other.
        own = places if places.bias is None else replace(places, bias=places.bias.fresh())
        return forward(x, mask, own, *rest)

    def remembering(x: Tensor, mask: AttentionMask, places: Places, *rest: Any) -> Tensor:
        if not (block.training and torch.is_grad_enabled()):
            return forward(x, mask, places, *rest)
        if places.bias is not None:
            places.bias.whole()  # shared by all layers: made once, outside of what is forgotten
        return checkpoint(again, x, mask, places, *rest, use_reentrant=False, **more)

    block.__dict__["forward"] = remembering
