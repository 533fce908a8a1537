"""The small parts of a block: norms and feed-forward networks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nlp.backbone.config import GATED, TransformerConfig


def layer_norm(config: TransformerConfig, width: int) -> nn.Module:
    """Mean and variance (Ba et al. 2016)."""
    return nn.LayerNorm(width, eps=config.norm_eps, bias=config.bias)


def rms_norm(config: TransformerConfig, width: int) -> nn.Module:
    """Root mean square only (Zhang & Sennrich 2019)."""
    return nn.RMSNorm(width, eps=config.norm_eps)


NORMS = {"layernorm": layer_norm, "rmsnorm": rms_norm}


def norm(config: TransformerConfig, width: int | None = None) -> nn.Module:
    """The configured normalisation over the last dimension (default: d_model)."""
    return NORMS[config.norm](config, width or config.d_model)


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)^2 (So et al. 2021)."""
    return F.relu(x).square()


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,  # the erf form is exact, and the faster one on a CPU
    "gelu_tanh": partial(F.gelu, approximate="tanh"),  # GPT-2's approximation
    "relu": F.relu,
    "relu2": squared_relu,
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """An activation between two linear layers (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.feedforward]
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D] -> [..., D]``."""
        return self.down(self.activation(self.up(x)))


class GatedFeedForward(nn.Module):
    """Two linear layers side by side, one of them through an activation (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[GATED[config.feedforward]]
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D] -> [..., D]``."""
        return self.down(self.activation(self.gate(x)) * self.up(x))


def feedforward(config: TransformerConfig) -> nn.Module:
    """The configured feed-forward network."""
    return GatedFeedForward(config) if config.gated else FeedForward(config)
