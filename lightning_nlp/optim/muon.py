"""Muon (Jordan et al. 2024) for the matrices inside blocks and AdamW for all else, as one optimizer.

The momentum of a matrix is replaced by the nearest matrix with equal singular values, so that every direction of it
learns alike. Updates are given the size that AdamW's have (Liu et al. 2025, "Muon is Scalable for LLM Training"): a
learning rate and a decay found for AdamW hold for both kinds of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lightning_nlp.backbone.parallel.collectives import local
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.config import OptimizerConfig
from lightning_nlp.optim.optimizers import can_fuse
from lightning_nlp.optim.sharding import own_part_of, spread_like, whole
from lightning_nlp.optim.stepping import Stepping

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic ``a x + b x^3 + c x^5``, steep at zero: small singular values grow 3.4 times an iteration."""
ITERATIONS = 5
"""They bring singular values above .002 of the matrix's norm to between .68 and 1.21."""
RMS = 0.2
"""Root mean square of AdamW's updates, at learning rate 1, in the training of language models."""
AT_ONCE = 2**25
"""Elements gathered and orthogonalised together: 128 MB in float32."""


def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Matrices ``[B, m, n]`` with their singular values brought near 1 by Newton-Schulz iterations; zeros stay zeros.

    The iterations run in ``dtype``: they need no more than bfloat16, and are several times faster in it.
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.promote_types(matrices.dtype, torch.float32))
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-30)).to(dtype)  # no singular value is above 1 now
    if tall := x.shape[-2] > x.shape[-1]:  # products of the short side with itself are the small ones
        x = x.mT
    for _ in range(ITERATIONS):
        products = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(products, products, products, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Stepping):
    """Groups with ``muon: True`` by Muon, all others by AdamW (fused where it can be).

    Args:
        groups: parameter groups. Those of Muon have matrices only, and may have ``rows``: for each parameter those
            of the matrices it is made of (queries, keys and values in one), which are orthogonalised apart.
        lr: of both kinds.
        betas: AdamW's.
        eps: AdamW's.
        momentum: of Muon.
        nesterov: add this step's gradient to the momentum again.
        fused: for AdamW; None takes the next best.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        fused: bool | None = None,
    ) -> None:
        self.rows: dict[Tensor, tuple[int, ...]] = {}
        self.orders: dict[Tensor, Tensor] = {}
        """Of parameters whose rows are not in their own order, because ranks hold pieces of each matrix: that order."""
        for group in groups:
            rows = group.pop("rows", None) or [()] * len(group["params"])
            if group["muon"]:
                self.rows.update(zip(group["params"], rows, strict=True))
        self.adamw = torch.optim.AdamW(
            [group for group in groups if not group["muon"]] or [{"params": [torch.zeros(0)]}],
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            fused=fused,
        )
        super().__init__(groups, {**self.adamw.defaults, "momentum": momentum, "nesterov": nesterov})

    def update(self) -> None:
        for group in self.param_groups:
            if group["muon"]:
                self._step_matrices(group)
        self.adamw.param_groups = [group for group in self.param_groups if not group["muon"]]
        self.adamw.state = self.state  # anew in every step: a loaded state comes in new dictionaries
        self.adamw.step()

    def _step_matrices(self, group: dict[str, Any]) -> None:
        used = [parameter for parameter in group["params"] if parameter.grad is not None]
        if not used:
            return
        for parameter in used:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        gradients = [local(parameter.grad) for parameter in used]
        momenta: list[Tensor] = [local(self.state[parameter]["momentum_buffer"]) for parameter in used]
        torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
        if group["nesterov"]:
            momenta = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))
        if group["weight_decay"]:
            torch._foreach_mul_([local(parameter) for parameter in used], 1 - group["lr"] * group["weight_decay"])
        for some in portions(used):
            matrices = [whole(spread_like(momenta[n], used[n])) for n in some]
            orders = [self.orders.get(used[n]) for n in some]
            matrices = [
                matrix if order is None else torch.empty_like(matrix).index_copy_(0, order, matrix)
                for matrix, order in zip(matrices, orders, strict=True)
            ]
            updates = self._updates(matrices, [used[n] for n in some])
            for number, update, order in zip(some, updates, orders, strict=True):
                update = update if order is None else update[order]
                local(used[number]).add_(own_part_of(update, used[number]), alpha=-group["lr"])

    def _updates(self, momenta: list[Tensor], parameters: list[Tensor]) -> list[Tensor]:
        """What the rate is multiplied with, for whole matrices; pieces of one shape in one batch, lying or standing."""
        pieces = [
            list(momentum.split(self.rows[parameter] or momentum.shape[0]))
            for momentum, parameter in zip(momenta, parameters, strict=True)
        ]
        batches: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for number, several in enumerate(pieces):
            for place, piece in enumerate(several):
                batches.setdefault((min(piece.shape), max(piece.shape)), []).append((number, place))
        for (_, long), members in batches.items():
            batch = torch.stack([lying(pieces[number][place]) for number, place in members])
            done = orthogonalised(batch).to(batch.dtype) * (RMS * math.sqrt(long))
            for (number, place), update in zip(members, done, strict=True):
                pieces[number][place] = update.mT if is_tall(pieces[number][place]) else update
        return [torch.cat(several) if len(several) > 1 else several[0] for several in pieces]


def is_tall(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def lying(matrix: Tensor) -> Tensor:
    """``[m, n]`` with ``m <= n``: the matrix or its transpose; orthogonalising commutes with that."""
    return matrix.mT if is_tall(matrix) else matrix


def portions(parameters: list[Tensor]) -> Iterator[list[int]]:
    """Numbers of neighbouring parameters with up to :data:`AT_ONCE` elements together, whole ones."""
    some: list[int] = []
    elements = 0
    for number, parameter in enumerate(parameters):
        if some and elements + parameter.numel() > AT_ONCE:
            yield some
            some, elements = [], 0
        some.append(number)
        elements += parameter.numel()
    yield some


def muon(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Muon as configured.

    Raises:
        ConfigError: nothing that is trained is a matrix inside a block.
    """
    if not any(group["muon"] for group in groups):
        raise ConfigError("optimizer.name is muon, but no matrix inside a block is trained: use adamw")
    fused = can_fuse([group for group in groups if not group["muon"]])
    return Muon(groups, config.lr, **config.settings, fused=fused or None)
