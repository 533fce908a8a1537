"""Initial weights: normal with a small deviation, less for what is added to the residual stream, less with depth."""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import nn

from lightning_nlp.backbone.config import TransformerConfig

RESIDUAL_OUTPUTS = ("attention.output", "cross_attention.output", "feedforward.down")


@torch.no_grad()
def init_weights(module: nn.Module, config: TransformerConfig) -> None:
    """Set every parameter of ``module`` (backbone and heads) anew; also right after ``to_empty`` from the meta device.

    Outputs that add to the residual stream get ``init_std / sqrt(n)``, n the additions of their stack: two a layer,
    three with cross-attention (GPT-2, Radford et al. 2019). Modules of other kinds set their parameters themselves, in
    ``reset_parameters``.

    Raises:
        TypeError: a module has parameters and no ``reset_parameters``: they would stay whatever memory held.
    """
    outputs = [name for name, child in module.named_modules() if name.endswith(RESIDUAL_OUTPUTS)]
    additions = Counter(name.partition("layers.")[0] for name in outputs)
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            share = additions[name.partition("layers.")[0]] if name.endswith(RESIDUAL_OUTPUTS) else 1
            nn.init.normal_(child.weight, std=config.init_std / math.sqrt(share))
            if child.bias is not None:
                nn.init.zeros_(child.bias)
        elif isinstance(child, nn.Embedding):
            nn.init.normal_(child.weight, std=config.init_std)
        elif next(child.parameters(recurse=False), None) is not None:
            if not hasattr(child, "reset_parameters"):
                raise TypeError(f"{type(child).__name__} '{name}' has parameters but no reset_parameters()")
            child.reset_parameters()
