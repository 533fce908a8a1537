"""Layers whose parameters are DTensors: each computes with the rows or columns this rank holds.

An ordinary module becomes one of these by a change of its class (see :mod:`lightning_nlp.backbone.parallel.plan`), so
names of parameters, and with them checkpoints, stay what they are.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nlp.backbone.parallel.collectives import Group, Sequence, added, copied, local
from lightning_nlp.backbone.parallel.vocabulary import Vocabulary


def used(parameter: Tensor | None, group: Group | None) -> Tensor | None:
    """A parameter that is whole on every rank; with ``group``, one whose uses differ between the ranks."""
    if parameter is None:
        return None
    return local(parameter) if group is None else copied(local(parameter), group)


class WholeLinear(nn.Linear):
    """The same on every rank."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, local(self.weight), local(self.bias))


class ColumnLinear(nn.Linear):
    """Outputs are dealt out: this rank makes its own heads, or hidden units, from whole inputs.

    ``group`` is None where the input has been gathered by :class:`Sequence` already, whose backward pass adds up.
    """

    group: Group | None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.group is None else copied(x, self.group)
        return F.linear(x, local(self.weight), local(self.bias))


class RowLinear(nn.Linear):
    """Inputs are dealt out; outputs are added up over the ranks, then get the bias, which is whole."""

    group: Group
    sequence: Sequence | None

    def forward(self, x: Tensor) -> Tensor:
        part = F.linear(x, local(self.weight))
        if self.sequence is None:
            part, own = added(part, self.group), None
        else:
            part, own = self.sequence.scattered(part), self.group
        bias = used(self.bias, own)
        return part if bias is None else part + bias


class WholeLayerNorm(nn.LayerNorm):
    """Whole parameters; ``group`` is set where ranks see different rows or heads."""

    group: Group | None

    def forward(self, x: Tensor) -> Tensor:
        gain, bias = used(self.weight, self.group), used(self.bias, self.group)
        return F.layer_norm(x, self.normalized_shape, gain, bias, self.eps)


class WholeRMSNorm(nn.RMSNorm):
    """Likewise."""

    group: Group | None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, used(self.weight, self.group), self.eps)


class LocalEmbedding(nn.Embedding):
    """Looked up in what this rank holds: all of it, or the columns of its heads."""

    def forward(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, local(self.weight))


class VocabularyEmbedding(nn.Embedding):
    """This rank holds a run of the vocabulary; what others hold comes from them."""

    vocabulary: Vocabulary

    def forward(self, tokens: Tensor) -> Tensor:
        inside, rows = self.vocabulary.rows(tokens)
        found = F.embedding(rows, local(self.weight))
        return added(found.masked_fill(~inside[..., None], 0.0), self.vocabulary.group)
