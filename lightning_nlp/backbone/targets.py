"""What scores of tokens are compared with: one label a row, perhaps smoothed or weighted."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nlp.errors import ConfigError

IGNORED = -100


class Targets:
    """Cross-entropy of rows of scores with labels, and its gradient.

    With labels ``y``, V tokens and smoothing ``e`` a row's loss is ``-sum_c q_c log p_c``, where

    - uniform: ``q_c = e / V``, and ``1 - e`` more at the label (Szegedy et al. 2016; PyTorch, transformers);
    - others: ``q_c = e / (V - 1)`` at all others, ``1 - e`` at the label (fairseq);
    - no_pad: ``q_c = e / (V - 2)`` at all others but the padding, ``1 - e`` at the label, and the entropy of ``q`` is
      taken off, so that the least loss is 0 (JoeyNMT's divergence).

    Class weights multiply ``q_c``. ``z_loss * logsumexp(scores)^2`` is added.

    Args:
        labels: ``[N]``; -100 counts nothing.
        vocabulary: V.
        wide: dtype of the sums.

    Raises:
        ConfigError: smoothing of another kind than uniform with class weights; ``no_pad`` without ``pad_id``.
    """

    def __init__(
        self,
        labels: Tensor,
        vocabulary: int,
        wide: torch.dtype,
        label_smoothing: float = 0.0,
        smoothing: str = "uniform",
        pad_id: int | None = None,
        z_loss: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        if label_smoothing and class_weights is not None and smoothing != "uniform":
            raise ConfigError(f"class weights go with loss.smoothing uniform, not {smoothing}")
        if label_smoothing and smoothing == "no_pad" and pad_id is None:
            raise ConfigError("loss.smoothing no_pad needs a padding token")
        self.labels, self.z_loss, self.wide = labels, z_loss, wide
        self.weights = None if class_weights is None else class_weights.to(labels.device, wide)
        self.plain = not label_smoothing and not z_loss
        self.entropy = 0.0
        """Taken off every row."""
        self.main = 1.0 - label_smoothing
        """What the label gets beyond its share of ``base``."""
        self.base: Tensor | None = None
        """``[V]``: what every token gets in every row."""
        if label_smoothing:
            spread = {"uniform": vocabulary, "others": vocabulary - 1, "no_pad": vocabulary - 2}[smoothing]
            each = label_smoothing / max(spread, 1)
            self.base = torch.full((vocabulary,), each, dtype=wide, device=labels.device)
            if self.weights is not None:
                self.base = self.base * self.weights
            if smoothing != "uniform":
                self.main -= each
            if smoothing == "no_pad":
                self.base[pad_id] = 0.0
                inside = 1.0 - label_smoothing
                self.entropy = inside * math.log(inside) + spread * each * math.log(each)

    def total(self, scores: Tensor) -> Tensor:
        """Sum over all rows of ``scores [N, V]``, for autograd to differentiate."""
        if self.plain:
            return F.cross_entropy(scores, self.labels, self.weights, ignore_index=IGNORED, reduction="sum")
        keep, label, main, every = self._rows(0, len(scores))
        norm = scores.logsumexp(-1, keepdim=True)
        rows = every * norm - main * scores.gather(1, label) + self.z_loss * norm.square() + self.entropy
        if self.base is not None:
            rows = rows - (scores @ self.base)[:, None]
        return rows.where(keep, 0.0).sum()

    def _rows(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of rows ``start:stop``, each ``[n, 1]``: counted or not, label, what it gets, and the sum of all targets."""
        label = self.labels[start:stop, None]
        keep = label != IGNORED
        label = label.where(keep, 0)
        main = torch.full(label.shape, self.main, dtype=self.wide, device=label.device)
        if self.weights is not None:
            main = main * self.weights[label]
        return keep, label, main, main if self.base is None else main + self.base.sum()

    def chunk(self, scores: Tensor, start: int, gradient: bool) -> Tensor:
        """Sum over rows ``start ...``; with ``gradient``, ``scores [n, V]`` is overwritten by the gradient.

        One exponential a score, in place: no second tensor of this size is made.
        """
        keep, label, main, every = self._rows(start, start + len(scores))
        rows = -main * scores.gather(1, label) + self.entropy
        if self.base is not None:
            rows -= (scores @ self.base)[:, None]
        highest = scores.amax(-1, keepdim=True)
        mass = scores.sub_(highest).exp_().sum(-1, keepdim=True)
        norm = highest + mass.log()
        rows += every * norm + self.z_loss * norm.square()
        if gradient:
            # The gradient of logsumexp is the softmax; the label's and everybody's share are taken off.
            scores.mul_(((every + 2 * self.z_loss * norm) / mass).where(keep, 0.0))
            scores.scatter_add_(1, label, (-main).where(keep, 0.0))
            if self.base is not None:
                scores.sub_(torch.where(keep, self.base, 0.0))
        return rows.where(keep, 0.0).sum()
