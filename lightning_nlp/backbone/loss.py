"""Losses of language models as (sum, count), without keeping all logits.

The chunked form (:mod:`lightning_nlp.backbone.chunked_loss`) computes gradients in its forward pass, a block of rows at
a time, into one reused buffer: three matrix products, nothing recomputed, and memory for ``chunk_rows`` rows of logits
instead of all. Log-sum-exp is in float32 (or float64) whatever the inputs are.

On a device that runs ahead of its host nothing here waits for a number, unless rows without a label are to be dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nlp.backbone.chunked_loss import ChunkedLoss, RowLoss, rows_at_once, runs_ahead
from lightning_nlp.backbone.parallel.vocabulary import DealtTargets, Vocabulary
from lightning_nlp.backbone.targets import IGNORED, Targets
from lightning_nlp.errors import ConfigError

CHUNK_ABOVE, GPU_CHUNK_ABOVE = 16 * 2**20, 256 * 2**20
"""Above this many bytes of float32 logits the chunked form is used: below it, there is nothing to save."""
WORTH_DROPPING = 0.75
"""On a CPU, rows without a label are dropped where fewer than this share of all have one."""

Smoothing = Literal["uniform", "others", "no_pad"]


@dataclass(frozen=True)
class LossConfig:
    """What is added to the cross-entropy of tokens in training; validation always measures the plain one."""

    label_smoothing: float = 0.0
    """Share of the target spread over other tokens (Szegedy et al. 2016)."""
    smoothing: Smoothing = "uniform"
    """Over all tokens (PyTorch, transformers), all others (fairseq), or all others but padding, as KL (JoeyNMT)."""
    z_loss: float = 0.0
    """Factor of the squared log-normaliser, which keeps scores from drifting (PaLM: 1e-4)."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"loss.label_smoothing must be in [0, 1), not {self.label_smoothing}")
        if self.smoothing not in ("uniform", "others", "no_pad"):
            raise ConfigError(f"unknown loss.smoothing '{self.smoothing}' (known: uniform, others, no_pad)")
        if not 0 <= self.z_loss < float("inf"):
            raise ConfigError(f"loss.z_loss must not be negative, not {self.z_loss}")


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float = 1.0,
    softcap: float | None = None,
    label_smoothing: float = 0.0,
    smoothing: Smoothing = "uniform",
    pad_id: int | None = None,
    z_loss: float = 0.0,
    class_weights: Tensor | None = None,
    chunk_rows: int | None = None,
    chunked: bool | None = None,
    drop_unlabelled: bool | None = None,
    vocabulary: Vocabulary | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of ``softmax(cap(scale * hidden @ weight.T + bias))``.

    Args:
        hidden: ``[N, D]``.
        weight: ``[V, D]``.
        labels: ``[N]``; -100 is left out.
        bias: ``[V]``.
        scale: factor of the products, taken into them at no cost (T5's tied head: ``D ** -0.5``; muP).
        softcap: scores become ``cap * tanh(score / cap)`` (Gemma 2).
        label_smoothing, smoothing, pad_id: see :class:`~lightning_nlp.backbone.targets.Targets`.
        z_loss: factor of ``logsumexp(scores)^2``, added (Chowdhery et al. 2022).
        class_weights: ``[V]``; the count is then the sum of the labels' weights, as PyTorch's mean has it.
        chunk_rows: rows of logits held at a time; by default what fits a buffer of fixed size.
        chunked: force one form; by default the size of the logits decides.
        drop_unlabelled: leave rows without a label out of the products, for which their number must be known. By
            default a CPU does where they are many, and a GPU, which would have to be waited for, does not; True is for
            objectives that label few tokens.
        vocabulary: ``weight`` and ``bias`` are this rank's rows of it; the loss is in chunks then.

    Under autocast the products are in its dtype. Apart from that ``hidden``, ``weight`` and ``bias`` share one.

    Returns:
        Sum over counted labels and their number, two float32 scalars (float64 for float64 inputs).

    Raises:
        ConfigError: a smoothing that does not go with ``class_weights``, or ``no_pad`` without ``pad_id``.
    """
    device = hidden.device.type
    hidden, weight, bias = cast(hidden, weight, bias)
    with torch.autocast(device, enabled=False):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        if smoothing == "no_pad" and label_smoothing and pad_id is not None:
            labels = labels.masked_fill(labels == pad_id, IGNORED)
        counted = labels != IGNORED
        count = counted.sum()
        if drop_unlabelled is None:
            drop_unlabelled = not runs_ahead(hidden.device) and int(count) < WORTH_DROPPING * labels.numel()
        if drop_unlabelled:
            hidden, labels = hidden[counted], labels[counted]
        options: dict[str, Any] = {"label_smoothing": label_smoothing, "smoothing": smoothing, "pad_id": pad_id}
        options |= {"z_loss": z_loss, "class_weights": class_weights}
        if vocabulary is None:
            targets = Targets(labels, len(weight), wide, **options)
        else:  # all ranks must take the same chunks
            targets, chunked = DealtTargets(vocabulary, labels, wide, **options), True
            chunk_rows = chunk_rows or rows_at_once(hidden, vocabulary.most)
        total = summed(hidden, weight, bias, targets, scale, softcap, chunk_rows, chunked)
        return total, count.to(wide) if targets.weights is None else weight_of_labels(targets.weights, labels)


def linear_distillation(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    teacher: Tensor | tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor | None],
    bias: Tensor | None = None,
    *,
    temperature: float = 1.0,
    scale: float = 1.0,
    softcap: float | None = None,
    teacher_scale: float = 1.0,
    teacher_softcap: float | None = None,
    chunk_rows: int | None = None,
    chunked: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """``T^2 KL(teacher || student)`` over the rows that have a label (Hinton et al. 2015), summed, and their number.

    Args:
        hidden, weight, bias, scale, softcap: the student's, as for :func:`linear_cross_entropy`.
        labels: ``[N]``; rows with -100 are left out, whatever stands in them.
        teacher: its logits ``[N, V]``, or its ``(hidden [N, D'], weight [V, D'])`` with or without ``bias [V]``, from
            which they are made ``chunk_rows`` rows at a time; no gradients go there. A token may have the logit
            ``-inf``: the teacher rules it out.
        temperature: T, by which both sides' scores are divided, after the cap.
        teacher_scale, teacher_softcap: those of the teacher's output layer, when its hidden states are given.

    Returns:
        Two float32 scalars (float64 for float64 inputs).

    Raises:
        ConfigError: a temperature that is not positive.
    """
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"the temperature of distillation must be positive, not {temperature}")
    device = hidden.device.type
    hidden, weight, bias = cast(hidden, weight, bias)
    if not isinstance(teacher, Tensor):
        teacher = cast(*teacher)
    with torch.autocast(device, enabled=False):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        index = (labels != IGNORED).nonzero().squeeze(1)
        if len(index) < len(hidden):
            hidden = hidden[index]
        rows = Soft(teacher, index, temperature, teacher_scale, teacher_softcap, wide)
        total = summed(hidden, weight, bias, rows, scale, softcap, chunk_rows, chunked)
        return total, torch.tensor(len(index), dtype=wide, device=hidden.device)


def cast(hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """All in autocast's dtype, where it is on and they are not in float64."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        hidden, weight = (x.to(torch.get_autocast_dtype(device)) for x in (hidden, weight))
        bias = None if bias is None else bias.to(hidden.dtype)
    return hidden, weight, bias


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """``scale * hidden @ weight.T + bias``."""
    if scale == 1.0:
        return F.linear(hidden, weight, bias)
    return torch.addmm(hidden.new_zeros(1) if bias is None else bias, hidden, weight.T, alpha=scale)


@dataclass
class Soft:
    """Divergence from a teacher's distribution."""

    teacher: Tensor | tuple[Tensor, Tensor, Tensor | None]
    index: Tensor
    """Of the counted rows among the teacher's."""
    temperature: float
    scale: float
    softcap: float | None
    wide: torch.dtype

    def logits(self, start: int, stop: int) -> Tensor:
        """The teacher's for counted rows ``start:stop``, over the temperature."""
        index = self.index[start:stop]
        with torch.no_grad():
            if isinstance(self.teacher, Tensor):
                rows = self.teacher[index].to(self.wide)
            else:
                hidden, weight, bias = self.teacher
                rows = linear(hidden[index], weight, bias, self.scale).to(self.wide)
                if self.softcap is not None:
                    rows = rows.div_(self.softcap).tanh_().mul_(self.softcap)
            # 0 log 0 is 0, which the logarithm of a token that is ruled out has to be finite for.
            return rows.div_(self.temperature).clamp_(min=torch.finfo(self.wide).min / 2)

    def total(self, scores: Tensor) -> Tensor:
        ours, theirs = (scores / self.temperature).log_softmax(-1), self.logits(0, len(scores)).log_softmax(-1)
        return (theirs.exp() * (theirs - ours)).sum() * self.temperature**2

    def chunk(self, scores: Tensor, start: int, gradient: bool) -> Tensor:
        ours = scores.div_(self.temperature)
        ours -= ours.logsumexp(-1, keepdim=True)
        theirs = self.logits(start, start + len(scores))
        theirs -= theirs.logsumexp(-1, keepdim=True)
        probabilities = theirs.exp()
        total = (probabilities * theirs.sub_(ours)).sum() * self.temperature**2
        if gradient:
            ours.exp_().sub_(probabilities).mul_(self.temperature)
        return total


def summed(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: RowLoss,
    scale: float,
    softcap: float | None,
    chunk_rows: int | None,
    chunked: bool | None,
) -> Tensor:
    """``rows`` over ``cap(scale * hidden @ weight.T + bias)``; ``chunked``, or the size of the logits, says how."""
    if chunked is None:
        above = GPU_CHUNK_ABOVE if runs_ahead(hidden.device) else CHUNK_ABOVE
        chunked = len(hidden) * weight.shape[0] * 4 > above
    if not chunked:
        scores = linear(hidden, weight, bias, scale).to(torch.promote_types(hidden.dtype, torch.float32))
        return rows.total(scores if softcap is None else softcap * (scores / softcap).tanh())
    if not torch.is_grad_enabled():  # autograd.Function would still see tensors that require gradients
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    if chunk_rows is None:
        chunk_rows = rows_at_once(hidden, weight.shape[0])
    return ChunkedLoss.apply(hidden, weight, bias, rows, scale, softcap, chunk_rows)


def cross_entropy(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy and number of labels for classification heads.

    Args:
        logits: ``[N, C]``.
        labels: ``[N]``; -100 is left out.
        label_smoothing: share of the target spread over all classes.
        class_weights: ``[C]``; the count is then the sum of the labels' weights.

    Returns:
        Two float32 scalars (float64 for float64 logits).
    """
    wide = torch.promote_types(logits.dtype, torch.float32)
    weights = None if class_weights is None else class_weights.to(wide)
    total = F.cross_entropy(
        logits.to(wide), labels, weights, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )
    return total, (labels != IGNORED).sum().to(wide) if weights is None else weight_of_labels(weights, labels)


def weight_of_labels(weights: Tensor, labels: Tensor) -> Tensor:
    """Sum of the class ``weights [C]`` of all ``labels [N]``."""
    counted = labels != IGNORED
    if not runs_ahead(labels.device):
        return weights[labels[counted]].sum()
    return weights[labels.where(counted, 0)].where(counted, 0.0).sum()
