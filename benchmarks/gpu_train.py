"""Training steps for ``benchmarks.gpu``: a plain loop around the backbone, the loss and fused AdamW.

A step is one micro-batch forward and backward, clipping and the optimizer. Tokens are random, and on the device before
the clock starts. Nothing in the loop waits for the device.
"""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu_tools import Emit, reason, seconds_of, wait
from lightning_nlp.backbone import gpu_loss
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights
from lightning_nlp.backbone.loss import linear_cross_entropy
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.optim.master_weights import MasterWeights

WINDOWS = 5
"""Stretches of steps that are timed; their median counts."""
BATCHES = 4
"""Batches that take turns."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained, and how.

    ``numerics``: master (bfloat16 beside float32 masters) or autocast. ``compiled``: none, blocks, model (without the
    loss) or all, whose loss is over all logits at once. ``documents``: rows are packed with so many, of uneven length.
    """

    row: str
    layers: int
    width: int
    heads: int
    vocabulary: int
    length: int
    micro_batches: tuple[int, ...]
    numerics: str = "master"
    compiled: str = "blocks"
    documents: int = 0
    seconds: float = 10.0
    """Of all stretches together, about."""

    @property
    def config(self) -> TransformerConfig:
        """The shape of a GPT-2."""
        return TransformerConfig(
            n_layers=self.layers, d_model=self.width, n_heads=self.heads, vocab_size=self.vocabulary,
            max_length=self.length, positions="learned",
        )  # fmt: skip


def flops(config: TransformerConfig, length: int) -> tuple[int, int]:
    """FLOPs of a token in training: as PaLM counts, and with causal attention counted once."""
    palm = config.flops_per_token(length)
    matrices = 2 * palm - config.flops_per_token(2 * length)  # attention grows with the length, they do not
    return palm, matrices + (palm - matrices) // 2


def split(x: Tensor, heads: int) -> Tensor:
    """``[B, T, D] -> [B, H, T, D / H]``, laid out as in the model."""
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def fastest_attention(training: Training, device: str) -> str:
    """Time PyTorch's fused kernels at this shape, and leave only the fastest switched on; names it with its time."""
    if device != "cuda":
        return "PyTorch's attention"
    shape = (8, training.length, 3 * training.width)
    found: dict[str, float] = {}
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        mixed = torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True)

        slope = torch.randn(shape[0], shape[1], training.width, device=device, dtype=torch.bfloat16)

        def step(mixed: Tensor = mixed, slope: Tensor = slope) -> None:
            heads = (split(x, training.heads) for x in mixed.chunk(3, dim=2))
            nn.functional.scaled_dot_product_attention(*heads, is_causal=True).backward(split(slope, training.heads))

        with contextlib.suppress(RuntimeError), sdpa_kernel(backend):
            seconds_of(step, device, 3)
            found[name] = seconds_of(step, device, 10) * 1e3
    if not found:
        return "PyTorch's attention"
    best = min(found, key=lambda name: found[name])
    torch.backends.cuda.enable_flash_sdp(best == "flash")
    torch.backends.cuda.enable_cudnn_sdp(best == "cudnn")
    return f"{best} attention ({', '.join(f'{name} {ms:.2f} ms' for name, ms in found.items())} for 8 rows)"


def batches(training: Training, batch: int, device: str) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """``(tokens, labels, segments)``, each ``[B, T]``; segments only where rows are packed."""
    made = []
    for number in range(BATCHES):
        generator = torch.Generator().manual_seed(number)
        shape = (batch, training.length)
        tokens, labels = torch.randint(training.vocabulary, (2, *shape), generator=generator).to(device)
        segments = None
        if training.documents:
            begins = torch.rand(shape, generator=generator).argsort(1) < training.documents - 1
            begins[:, 0] = False
            segments = (begins.cumsum(1) + 1).to(device)
        made.append((tokens, labels, segments))
    return made


def loss_function(training: Training, model: Transformer) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """``(tokens, labels, segments) -> mean loss``, compiled as asked."""
    inner: Callable[..., Tensor] = model
    if training.compiled == "blocks":
        for block in model.blocks():
            block.compile(dynamic=False)
    elif training.compiled == "model":
        inner = torch.compile(model, dynamic=False)

    def loss(tokens: Tensor, labels: Tensor, segments: Tensor | None) -> Tensor:
        hidden = inner(tokens) if segments is None else inner(tokens, segments=segments)
        total, count = linear_cross_entropy(
            hidden.flatten(0, 1), model.embedding_weight, labels.flatten(),
            chunked=training.compiled != "all", drop_unlabelled=False,
        )  # fmt: skip
        return total / count

    return torch.compile(loss, dynamic=False) if training.compiled == "all" else loss


def measured(training: Training, batch: int, device: str) -> dict[str, Any]:
    """Train a while with this micro-batch; a row's numbers.

    Raises:
        torch.OutOfMemoryError: it does not fit.
    """
    torch.manual_seed(0)
    config = training.config
    with torch.device(device):
        model = Transformer(config)
    init_weights(model, config)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    weights = MasterWeights(model)
    numerics: Callable[[], Any] = weights.computing
    if training.numerics == "autocast":
        numerics = lambda: torch.autocast(device, torch.bfloat16)  # noqa: E731
    parameters = list(model.parameters())
    groups = [{"params": [p for p in parameters if p.ndim >= 2], "weight_decay": 0.1}]
    groups.append({"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=3e-4, betas=(0.9, 0.95), fused=True)
    loss, pool, losses = loss_function(training, model), batches(training, batch, device), list[Tensor]()

    def step() -> None:
        tokens, labels, segments = pool[len(losses) % len(pool)]
        with numerics():
            value = loss(tokens, labels, segments)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        weights.changed()
        losses.append(value.detach())

    started = time.perf_counter()
    step()
    wait(device)
    first = time.perf_counter() - started
    each = seconds_of(step, device, 3)
    gc.collect()
    gc.freeze()  # a collection that looks through all of this would take longer than a step
    steps = max(1, round(training.seconds / WINDOWS / each))
    windows = [seconds_of(step, device, steps) for _ in range(WINDOWS)]
    gc.unfreeze()
    values = torch.stack(losses).tolist()
    if not all(value == value and abs(value) < 100 for value in values):
        raise ArithmeticError(f"the loss is {values[-1]} after {len(values)} steps")
    seconds = median(windows)
    palm, causal = flops(config, training.length)
    return {
        "micro_batch": batch,
        "tokens_per_second": batch * training.length / seconds,
        "ms_per_step": seconds * 1e3,
        "ms_of_windows": [round(window * 1e3, 3) for window in windows],
        "gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        "parameters": config.num_params(),
        "flops_palm": palm,
        "flops_causal": causal,
        "first_step_seconds": first,
        "loss": [values[0], values[-1]],
        "steps": len(values),
    }


def run(spec: dict[str, Any], device: str, emit: Emit) -> None:
    """One try: the largest micro-batch that fits is measured."""
    training = Training(**{**spec, "micro_batches": tuple(spec["micro_batches"])})
    packed = f", {training.documents} documents a row" if training.documents else ""
    how = f"{training.numerics}, {training.compiled} compiled{packed}"
    common = {"part": "train", "row": training.row, "try": how}
    attention = fastest_attention(training, device)
    for batch in training.micro_batches:
        try:
            found = measured(training, batch, device)
        except torch.OutOfMemoryError as error:
            full = reason(error)
        else:
            note = f"{attention}; first step {found['first_step_seconds']:.0f} s"
            note += f"; loss {found['loss'][0]:.2f} to {found['loss'][1]:.2f}"
            note += "; the loss could not be compiled" if gpu_loss.failures else ""
            emit({**common, "note": note, **found})
            return
        gc.collect()  # the traceback held the model
        torch.cuda.empty_cache()
        torch._dynamo.reset()
        emit({**common, "try": f"{how}, micro-batch {batch}", "status": "failed", "note": full})
    raise MemoryError(f"no micro-batch of {training.micro_batches} fits")
