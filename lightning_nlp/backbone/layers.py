"""The small parts of a block: norms and feed-forward networks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig


def layer_norm(config: TransformerConfig) -> nn.Module:
    """Mean and variance (Ba et al. 2016)."""
    return nn.LayerNorm(config.d_model, eps=config.norm_eps, bias=config.bias)


def rms_norm(config: TransformerConfig) -> nn.Module:
    """Root mean square only (Zhang & Sennrich 2019)."""
    return nn.RMSNorm(config.d_model, eps=config.norm_eps)


NORMS = {"layernorm": layer_norm, "rmsnorm": rms_norm}


def norm(config: TransformerConfig) -> nn.Module:
    """The configured normalisation over the last dimension."""
    return NORMS[config.norm](config)


class FeedForward(nn.Module):
    """GELU between two linear layers; the erf form is exact, and the faster one on a CPU."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D] -> [..., D]``."""
        return self.down(F.gelu(self.up(x)))


class SwiGLU(nn.Module):
    """Gated with SiLU (Shazeer 2020)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.up = nn.Linear(config.d_model, config.d_ff, bias=config.bias)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=config.bias)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D] -> [..., D]``."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


FEEDFORWARDS: dict[str, type[nn.Module]] = {"gelu": FeedForward, "swiglu": SwiGLU}


def feedforward(config: TransformerConfig) -> nn.Module:
    """The configured feed-forward network."""
    return FEEDFORWARDS[config.feedforward](config)
