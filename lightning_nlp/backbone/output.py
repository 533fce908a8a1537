"""From hidden states to scores of tokens: the output layer that every language-modelling head has."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.layers import norm
from lightning_nlp.backbone.loss import linear_cross_entropy
from lightning_nlp.backbone.parallel.collectives import copied, local
from lightning_nlp.backbone.parallel.vocabulary import Vocabulary


class OutputTransform(nn.Module):
    """A dense layer, GELU and a norm before the output matrix (BERT)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model, bias=config.bias)
        self.norm = norm(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """``[..., D] -> [..., D]``."""
        return self.norm(F.gelu(self.dense(hidden)))


class TokenOutput(nn.Module):
    """Scores ``cap(scale * (h W^T) + b)`` of tokens; W is the embedding when tied.

    The embedding is handed in at every call, because the backbone owns it.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.vocab_size is not None
        self.transform = OutputTransform(config) if config.output_transform else None
        self.matrix = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size)) if config.output_bias else None
        self.scale = config.output_scale / config.width_multiplier
        self.softcap = config.output_softcap
        self.vocabulary: Vocabulary | None = None
        """Of which tokens this rank has the scores, where the vocabulary is dealt out."""

    def reset_parameters(self) -> None:
        """The bias; what is inside sets itself."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def _ready(self, hidden: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        hidden = hidden if self.transform is None else self.transform(hidden)
        return hidden if self.scale == 1.0 else hidden * self.scale, self.weight(embedding)

    def weight(self, embedding: Tensor) -> Tensor:
        """The output matrix ``[V, D]``, or this rank's rows of it."""
        return local(embedding if self.matrix is None else self.matrix.weight)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Scores ``[..., V]`` of ``hidden [..., D]`` with ``embedding [V, D]``."""
        hidden, weight = self._ready(hidden, embedding)
        scores = F.linear(hidden, weight, local(self.bias))
        scores = scores if self.softcap is None else self.softcap * (scores / self.softcap).tanh()
        return scores if self.vocabulary is None else self.vocabulary.all_scores(scores)

    def loss(self, hidden: Tensor, embedding: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        """Cross-entropy (sum, count) of ``labels [N]`` (-100: none) at ``hidden [N, D]``, without all scores in memory.

        Args:
            options: see :func:`lightning_nlp.backbone.loss.linear_cross_entropy`.
        """
        if self.transform is not None:  # rows without a label are not worth the work
            kept = labels != -100
            hidden, labels = hidden[kept], labels[kept]
        hidden, weight = self._ready(hidden, embedding)
        if self.softcap is not None:
            options["softcap"] = self.softcap
        if self.vocabulary is not None:
            hidden, options["vocabulary"] = copied(hidden, self.vocabulary.group), self.vocabulary
        return linear_cross_entropy(hidden, weight, labels, local(self.bias), **options)
