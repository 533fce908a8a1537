"""The arithmetic of a plan: parameters, FLOPs, memory by part, batches and checkpoints of a configuration."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_nlp.backbone.adapters import is_adapter
from lightning_nlp.backbone.counting import Work
from lightning_nlp.backbone.footprint import Bytes, activations, scores_of_tokens
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.callbacks.utilization import Weights
from lightning_nlp.cli.plan_config import Asked
from lightning_nlp.data.order.arithmetic import BatchSize, accumulation
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.sharding import shares

PARTS = ("embedding", "attention", "feed-forward", "norms and biases", "head", "adapter")
RECORD, RANDOM = 450, 20_000
"""Bytes of a checkpoint around a tensor, and of the random states of a rank with counters and settings."""


def part_of(name: str) -> str:
    """The part of a model that a parameter belongs to, by its name."""
    if is_adapter(name):
        return "adapter"
    if name.startswith("heads."):
        return "head"
    if "embedding" in name or ".positions." in name:
        return "embedding"
    if ".attention." in name or ".cross_attention." in name:
        return "attention"
    return "feed-forward" if ".feedforward." in name else "norms and biases"


def parameters(task: Any) -> dict[str, int]:
    """How many parameters each part has; parts without any are left out."""
    found = dict.fromkeys(PARTS, 0)
    for name, weight in task.named_parameters():
        found[part_of(name)] += weight.numel()
    return {part: number for part, number in found.items() if number}


def numbers_of(precision: str) -> tuple[Bytes, int, int]:
    """Widths of activations; bytes of a parameter, and of its narrow copy."""
    if precision in ("bf16-true", "16-true"):
        return Bytes(2, 2), 2, 0
    if precision.startswith("64"):
        return Bytes(8, 8), 8, 0
    if precision == "bf16-master":
        return Bytes(2, 2), 4, 2
    if precision.startswith(("bf16", "16", "transformer-engine")):
        return Bytes(4, 2), 4, 2
    return Bytes(4, 4), 4, 0


@dataclass(frozen=True)
class Batch:
    """What one rank computes at once, and how often in a step."""

    rows: float
    length: int
    source: int
    micro_batches: int

    @property
    def tokens(self) -> float:
        """Positions, those of sources too."""
        return self.rows * (self.length + self.source)


def batch_of(asked: Asked, micro_batches: int | None = None) -> Batch:
    """The micro-batch of a rank; with ``micro_batches``, of another accumulation."""
    parts = asked.accumulation if micro_batches is None else micro_batches
    length, source = asked.data.longest
    size = asked.data.batch
    if size.rows is not None:
        return Batch(size.rows.final / asked.layout.data / parts, length, source, parts)
    assert size.tokens is not None
    return Batch(size.tokens / asked.layout.data / parts / (length + source), length, source, parts)


def labelled(asked: Asked, rows: float, tokens: float) -> float:
    """Positions with a label, as far as the configuration says: all, those that are masked, or one a row."""
    if not any(isinstance(module, TokenOutput) for module in asked.task.heads.modules()):
        return rows
    return tokens * float(getattr(asked.data, "mask_prob", 1.0))


def step_work(asked: Asked) -> Work:
    """What a step of all ranks computes on, with rows as long as they may be."""
    batch = batch_of(asked)
    rows = batch.rows * batch.micro_batches * asked.layout.data
    tokens = rows * batch.length
    return Work(rows, tokens, labelled(asked, rows, tokens), rows * batch.source)


def steps_in_full(asked: Asked) -> float | None:
    """Steps of the run, counted in steps of the final batch: fewer where the batch grows."""
    size = asked.data.batch.rows
    if asked.steps is None or size is None:
        return asked.steps
    return size.first(asked.steps) / size.final


def flops(asked: Asked) -> dict[str, float]:
    """FLOPs of a step, by convention."""
    weights, work = Weights(asked.task), step_work(asked)
    return {convention: weights.flops(work, convention) for convention in ("palm", "causal")}


def optimizer_bytes(asked: Asked) -> int:
    """Of the state that the optimizer really makes, which one step on tensors without memory shows."""
    optimizer: Any = asked.task.configure_optimizers()
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.empty_like(weight)
    optimizer.step()
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = None
    width = numbers_of(asked.precision)[1]
    states = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return sum(value.numel() * (width if value.device.type == "meta" else value.element_size()) for value in states)


def memory(asked: Asked, micro_batches: int | None = None) -> dict[str, float]:
    """Bytes of one rank at most, by part: when a forward pass is done and the last gradients are not cleared yet."""
    numbers, width, copy = numbers_of(asked.precision)
    held = shares(asked.layout.strategy, asked.layout.data, asked.layout.tensor)
    weights = {True: 0, False: 0}
    """Numbers that tensor-parallel ranks share out, and others."""
    trained = {True: 0, False: 0}
    for name, weight in asked.task.named_parameters():
        divided = weight.ndim == 2 and part_of(name) in ("embedding", "attention", "feed-forward", "head")
        weights[divided] += weight.numel()
        trained[divided] += weight.numel() if weight.requires_grad else 0

    def on_rank(count: dict[bool, int]) -> float:
        return count[True] / held.tensor + count[False]

    batch = batch_of(asked, micro_batches)
    kept = activations(
        asked.task.config, batch.rows, batch.length, batch.source, numbers, asked.layout.on_cpu,
        recomputed=asked.settings["trainer"].get("activation_checkpointing"),
    )  # fmt: skip
    found = {
        "weights": width * on_rank(weights) / held.weights,
        "gradients": width * on_rank(trained) / held.gradients,
        "optimizer": optimizer_bytes(asked) * on_rank(trained) / max(sum(trained.values()), 1) / held.optimizer,
        "activations": kept.stream + kept.inner / held.tensor,
    }
    if asked.layout.strategy.startswith("ddp") and asked.layout.data > 1:
        found["buckets sent"] = found["gradients"]  # DDP copies gradients into what it sends
    if copy:
        found["narrow copies"] = copy * on_rank(weights)
    if any(isinstance(module, TokenOutput) for module in asked.task.heads.modules()):
        labels = labelled(asked, batch.rows, batch.rows * batch.length)
        found["scores of tokens"] = (
            scores_of_tokens(asked.task.config, labels, numbers, asked.layout.on_cpu) / held.tensor
        )
    if asked.ema:
        found["moving average"] = 4 * on_rank(trained)
    return found


def checkpoint_bytes(asked: Asked) -> int:
    """Of one file: weights, optimizer state, and what stands around them."""
    width = numbers_of(asked.precision)[1]
    weights = list(asked.task.parameters())
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    total = width * sum(weight.numel() for weight in weights) + optimizer_bytes(asked)
    total += 4 * trained if asked.ema else 0
    tensors = len(weights) + 3 * sum(weight.requires_grad for weight in weights)
    return total + RECORD * tensors + RANDOM * asked.layout.data * asked.layout.tensor


def accumulations(asked: Asked) -> list[int]:
    """Numbers of micro-batches that the batch can be cut into on every rank, fewest first."""
    size, ranks = asked.data.batch, asked.layout.data
    most = asked.data.lanes // ranks if size.rows is None else size.rows.final // ranks
    found = []
    for parts in range(1, most + 1):
        micro = micro_of(asked, parts)
        if micro is None:
            continue
        cut = BatchSize(size.rows, size.tokens, micro)
        with suppress(ConfigError):  # what does not divide
            if accumulation(cut, ranks, asked.data.lanes, asked.data.longest) == parts:
                found.append(parts)
    return found


def micro_of(asked: Asked, parts: int) -> int | None:
    """``data.micro_batch_size``, or ``_tokens``, for so many micro-batches; None when they would not be equal."""
    size, ranks = asked.data.batch, asked.layout.data
    if size.rows is None:
        assert size.tokens is not None
        return -(-size.tokens // ranks // parts)
    each = size.rows.final // ranks
    return None if each % parts else each // parts
