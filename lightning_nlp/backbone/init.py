"""Initial weights, by the published recipes; what is added to the residual stream gets less with depth.

========  ======================================================================================================
gpt2      normal, ``init_std``; outputs into the residual stream ``init_std / sqrt(additions)`` (Radford et al. 2019)
bert      normal, ``init_std``, cut at two deviations (Devlin et al. 2019)
t5        normal by fan: queries ``(D Dh)^-0.5``, keys and values ``D^-0.5``, outputs by their own inputs, embeddings 1
          (Raffel et al. 2020), so that no scale is needed in attention
xavier    uniform by the sum of fans (Glorot & Bengio 2010); of queries, keys and values ``sqrt(1/2)`` of it, as in one
          matrix that gives all three (fairseq, nn.MultiheadAttention); embeddings ``D^-0.5`` (Vaswani et al. 2017)
small     ``sqrt(2 / 5 D)``, outputs ``2 / (L sqrt(D))`` (Nguyen & Salazar 2019; Wang & Komatsuzaki 2021)
mup       as gpt2 at ``mup_base_width``; matrices of wider models ``1 / sqrt(multiplier)`` of it (Yang et al. 2022)
========  ======================================================================================================

Biases start at 0. *additions* counts the sub-layers of the whole stack: two a layer, three with cross-attention.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig

RESIDUAL_OUTPUTS = ("attention.output", "feedforward.down")
PROJECTIONS = ("query_key_value", "query", "key_value")

Around = Callable[[nn.Module], AbstractContextManager[Any]]
Parts = list[Tensor]
"""The matrices that one fused weight holds."""


@torch.no_grad()
def init_weights(module: nn.Module, config: TransformerConfig, around: Around = nullcontext) -> None:
    """Set every parameter of ``module`` (backbone and heads) anew; also right after ``to_empty`` from the meta device.

    Modules that are neither linear nor embeddings set their parameters themselves, in ``reset_parameters``.

    Args:
        around: a context for each module that has parameters; inside it they must be whole.

    Raises:
        TypeError: a module has parameters and no ``reset_parameters``: they would stay whatever memory held.
    """
    rule = RULES[config.init](config)
    outputs = [name for name, child in module.named_modules() if name.endswith(RESIDUAL_OUTPUTS)]
    additions = Counter(name.partition("layers.")[0] for name in outputs)
    for name, child in module.named_modules():
        if next(child.parameters(recurse=False), None) is None:
            continue
        with around(child):
            share = additions[name.partition("layers.")[0]] if name.endswith(RESIDUAL_OUTPUTS) else 0
            init_module(name, child, rule, share, config)


def init_module(name: str, child: nn.Module, rule: GPT2, additions: int, config: TransformerConfig) -> None:
    """Set the parameters of one module."""
    if isinstance(child, nn.Linear):
        for part in parts_of(name, child.weight, config):
            rule.matrix(part, name, additions)
        if child.bias is not None:
            nn.init.zeros_(child.bias)
    elif isinstance(child, nn.Embedding):
        rule.embedding(child.weight, name)
    elif (reset := getattr(child, "reset_parameters", None)) is not None:
        reset()
    else:
        raise TypeError(f"{type(child).__name__} '{name}' has parameters but no reset_parameters()")


def parts_of(name: str, weight: Tensor, config: TransformerConfig) -> Parts:
    """A fused weight as the matrices it is made of; they share its memory."""
    inner, inner_kv = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
    if name.endswith("query_key_value"):
        return list(weight.split([inner, inner_kv, inner_kv]))
    return list(weight.chunk(2)) if name.endswith("key_value") else [weight]


class GPT2:
    """See the module's text; the base of the other rules."""

    def __init__(self, config: TransformerConfig) -> None:
        self.config, self.std = config, config.init_std

    def matrix(self, weight: Tensor, name: str, additions: int) -> None:
        """Fill one matrix ``[out, in]``; ``additions`` is 0 unless it adds to the residual stream."""
        nn.init.normal_(weight, std=self.std / math.sqrt(additions or 1))

    def embedding(self, weight: Tensor, name: str) -> None:
        """Fill one table ``[n, D]``."""
        nn.init.normal_(weight, std=self.std)


class BERT(GPT2):
    def matrix(self, weight: Tensor, name: str, additions: int) -> None:
        nn.init.trunc_normal_(weight, std=self.std, a=-2 * self.std, b=2 * self.std)

    def embedding(self, weight: Tensor, name: str) -> None:
        self.matrix(weight, name, 0)


class T5(GPT2):
    def matrix(self, weight: Tensor, name: str, additions: int) -> None:
        std = weight.shape[1] ** -0.5
        first = weight.storage_offset() == 0  # of a fused weight, the queries
        if name.endswith((".query_key_value", ".query", "global_query_key_value")) and first:
            std *= self.config.d_head**-0.5
        nn.init.normal_(weight, std=std)

    def embedding(self, weight: Tensor, name: str) -> None:
        nn.init.normal_(weight, std=self.config.d_model**-0.5 if name.endswith("positions.embedding") else 1.0)


class Xavier(GPT2):
    def matrix(self, weight: Tensor, name: str, additions: int) -> None:
        nn.init.xavier_uniform_(weight, gain=0.5**0.5 if name.endswith(PROJECTIONS) else 1.0)

    def embedding(self, weight: Tensor, name: str) -> None:
        nn.init.normal_(weight, std=self.config.d_model**-0.5)


class Small(GPT2):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.std = math.sqrt(2 / (5 * config.d_model))

    def matrix(self, weight: Tensor, name: str, additions: int) -> None:
        """Outputs count layers as pairs of additions, so that deep stacks with cross-attention get no more."""
        std = self.std if not additions else 2 / (additions / 2 * math.sqrt(self.config.d_model))
        nn.init.normal_(weight, std=std)


class MuP(GPT2):
    def matrix(self, weight: Tensor, name: str, additions: int) -> None:
        """The output matrix keeps its deviation: its scores are divided by the multiplier instead."""
        wider = 1.0 if name.endswith("output.matrix") else self.config.width_multiplier
        nn.init.normal_(weight, std=self.std / math.sqrt(wider * (additions or 1)))


RULES: dict[str, Callable[[TransformerConfig], GPT2]] = {
    "gpt2": GPT2,
    "bert": BERT,
    "t5": T5,
    "xavier": Xavier,
    "small": Small,
    "mup": MuP,
}


def learning_rate_scale(name: str, config: TransformerConfig) -> float:
    """Factor of a parameter's learning rate under Adam, by its name: muP's for matrices inside blocks, else 1.

    Matrices whose inputs and outputs both grow with the width get ``1 / multiplier`` (Yang et al. 2022, table 8);
    embeddings, biases and norms, and the output matrix, whose scores are divided instead, keep the rate.
    """
    matrix = name.endswith(".weight") and not re.search(r"(norm|after|embedding)\.weight$", name)
    hidden = matrix and (".layers." in name or ".transform." in name)
    return 1.0 / config.width_multiplier if hidden else 1.0
