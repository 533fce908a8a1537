"""A vocabulary dealt out to ranks: who holds which tokens, and the loss of scores of which each rank has some.

Only the maximum, the mass and the label's score of every row travel, never the scores (Shoeybi et al. 2019, section 3).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from lightning_nlp.backbone.targets import Targets
from lightning_nlp.errors import ConfigError


class Vocabulary:
    """A run of the vocabulary for every rank: ``ceil(V / ranks)`` tokens each, the last rank perhaps fewer.

    Args:
        size: V.
        group: the process group.

    Raises:
        ConfigError: a rank would hold nothing.
    """

    def __init__(self, size: int, group: Any) -> None:
        self.size, self.group = size, group
        self.ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        self.most = -(-size // self.ranks)
        if self.most * (self.ranks - 1) >= size:
            raise ConfigError(f"a vocabulary of {size} cannot be dealt out to {self.ranks} tensor-parallel processes")
        self.start, self.stop = rank * self.most, min((rank + 1) * self.most, size)

    def rows(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Which ``tokens`` this rank holds, and their rows here (0 for others)."""
        inside = (tokens >= self.start) & (tokens < self.stop)
        return inside, (tokens - self.start).where(inside, 0)

    def own(self, x: Tensor) -> Tensor:
        """Of something ``[V]``, what belongs to this rank's tokens."""
        return x[self.start : self.stop]

    def all_scores(self, scores: Tensor) -> Tensor:
        """Scores ``[..., V]`` of all tokens from this rank's; to look at, not to differentiate."""
        padded = F.pad(scores.detach(), (0, self.most - scores.shape[-1])).contiguous()
        parts = [torch.empty_like(padded) for _ in range(self.ranks)]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat(parts, dim=-1)[..., : self.size]

    def summed(self, x: Tensor) -> Tensor:
        """The sum over the ranks, in place."""
        dist.all_reduce(x, group=self.group)
        return x

    def highest(self, x: Tensor) -> Tensor:
        """The largest over the ranks, in place."""
        dist.all_reduce(x, op=dist.ReduceOp.MAX, group=self.group)
        return x


class DealtTargets(Targets):
    """:class:`Targets` for scores ``[n, V of this rank]``; losses are equal on all ranks, gradients this rank's own."""

    def __init__(self, vocabulary: Vocabulary, labels: Tensor, wide: torch.dtype, **options: Any) -> None:
        super().__init__(labels, vocabulary.size, wide, **options)
        self.vocabulary = vocabulary

    def total(self, scores: Tensor) -> Tensor:
        """Not offered: autograd would not see what the other ranks hold."""
        raise TypeError("scores that are dealt out to ranks have a loss in chunks only")

    def chunk(self, scores: Tensor, start: int, gradient: bool) -> Tensor:
        keep, label, main, every = self._rows(start, start + len(scores))
        inside, place = self.vocabulary.rows(label)
        base = None if self.base is None else self.vocabulary.own(self.base)
        highest = self.vocabulary.highest(scores.amax(-1, keepdim=True))
        of_label = scores.gather(1, place).masked_fill(~inside, 0.0)
        of_base = torch.zeros_like(of_label) if base is None else (scores @ base)[:, None]
        mass = scores.sub_(highest).exp_().sum(-1, keepdim=True)
        of_label, of_base, mass = self.vocabulary.summed(torch.cat((of_label, of_base, mass), dim=1)).split(1, dim=1)
        norm = highest + mass.log()
        rows = every * norm - main * of_label - of_base + self.z_loss * norm.square() + self.entropy
        if gradient:
            scores.mul_(((every + 2 * self.z_loss * norm) / mass).where(keep, 0.0))
            scores.scatter_add_(1, place, (-main).where(keep & inside, 0.0))
            if base is not None:
                scores.sub_(torch.where(keep, base, 0.0))
        return rows.where(keep, 0.0).sum()
