"""How much of a device a run uses: FLOPs of the model against peak and ceiling, and memory."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_nlp.backbone.adapters import is_adapter
from lightning_nlp.backbone.ceiling import matmul_flops
from lightning_nlp.backbone.counting import Convention, Side, Work, training_flops
from lightning_nlp.backbone.output import TokenOutput
from lightning_nlp.run.peaks import peak_flops

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "tf32": torch.float32, "fp32": torch.float32}
CONVENTIONS: tuple[Convention, ...] = ("palm", "causal")


def kind_of(precision: str, device: torch.device) -> str | None:
    """What is multiplied under a precision of the Trainer: a key of :data:`DTYPES`; None for float64."""
    if precision.startswith(("bf16", "transformer-engine")):
        return "fp16" if precision.endswith("float16") and not precision.startswith("bf16") else "bf16"
    if precision.startswith("16"):
        return "fp16"
    if precision.startswith("64"):
        return None
    return "tf32" if device.type == "cuda" and torch.get_float32_matmul_precision() != "highest" else "fp32"


class Weights:
    """The matrices of a task, as FLOPs count them: how many numbers on each side, and how many of them are trained."""

    def __init__(self, task: Any) -> None:
        self.config = task.config
        self.outputs: int | None = None
        self.trained: dict[Side, int] = {"tokens": 0, "source": 0, "labels": 0}
        self.extra: dict[Side, int] = {"tokens": 0, "source": 0, "labels": 0}
        heads, tied = 0, True
        for name, weight in task.named_parameters():
            if weight.ndim != 2 or "embedding" in name or ".positions." in name or "score_vector" in name:
                continue
            side = self._side(name)
            if is_adapter(name):
                self.extra[side] += weight.numel()
                continue
            heads += weight.numel() if side == "labels" else 0
            if weight.requires_grad:
                self.trained[side] += weight.numel()
        for module in task.heads.modules():
            if isinstance(module, TokenOutput):
                tied = module.matrix is None
                break
        else:  # a class, or a number: the vocabulary has no part in it
            self.outputs, tied = heads // self.config.d_model, False
        if tied and task.backbone.embedding_weight.requires_grad:
            self.trained["labels"] += task.backbone.embedding_weight.numel()

    def _side(self, name: str) -> Side:
        if not name.startswith("backbone."):
            return "labels"
        paired = self.config.arrangement == "encoder_decoder"
        if paired and (name.startswith("backbone.encoder.") or ".cross_attention.key_value" in name):
            return "source"
        return "tokens"

    def flops(self, work: Work, convention: Convention) -> float:
        """Of training on ``work``."""
        return training_flops(self.config, work, convention, self.outputs, self.trained, self.extra)


class Utilization:
    """Model FLOPs a second as shares of what the devices could do.

    ``mfu_*`` are shares of the listed dense peak (Chowdhery et al. 2022, appendix B), where the device is listed;
    ``mfu_*_measured`` of the fastest matrix product that was measured here. ``palm`` counts attention in full,
    ``causal`` what is seen.
    """

    def __init__(self, trainer: Trainer, module: Any) -> None:
        device = trainer.strategy.root_device
        self.devices = trainer.world_size
        self.weights = Weights(module) if hasattr(module, "heads") and hasattr(module, "config") else None
        self.kind = kind_of(str(trainer.precision), device)
        self.peak: float | None = None
        self.ceiling: float | None = None
        if self.weights is None or not trainer.is_global_zero:  # whose numbers are the ones that are written
            return
        if device.type == "cuda" and self.kind is not None:
            self.peak = peak_flops(torch.cuda.get_device_name(device), self.kind)
        self.ceiling = matmul_flops(device, torch.float64 if self.kind is None else DTYPES[self.kind])

    def rates(self, work: Work, tokens_per_second: float) -> dict[str, float]:
        """Model FLOP/s of all devices by convention, at that many tokens a second, of batches like ``work``."""
        if self.weights is None or not work.tokens:
            return {}
        each = {convention: self.weights.flops(work, convention) / work.tokens for convention in CONVENTIONS}
        return {convention: flops * tokens_per_second for convention, flops in each.items()}

    def shares(self, rates: Mapping[str, float]) -> dict[str, float]:
        """``mfu_*`` at those rates."""
        found = {}
        for convention, rate in rates.items():
            if self.peak is not None:
                found[f"mfu_{convention}"] = rate / self.devices / self.peak
            if self.ceiling is not None:
                found[f"mfu_{convention}_measured"] = rate / self.devices / self.ceiling
        return found


def work_of(batch: Mapping[str, Any]) -> list[int]:
    """Rows, tokens, labels and tokens of sources in a batch: the fields of :class:`Work`. Waits for the device."""
    segments, labels = batch["segments"], batch["labels"]
    tokens = (segments > 0).sum()
    # Labels of a text, not of its tokens: the output layer is applied once a row.
    counted = (labels != -100).sum() if labels.shape == segments.shape else tokens.new_tensor(len(segments))
    source = batch.get("source_segments")
    read = torch.stack([tokens, counted, tokens.new_zeros(()) if source is None else (source > 0).sum()])
    return [len(segments), *map(int, read.tolist())]


def memory_of(device: torch.device) -> dict[str, int]:
    """Bytes of this process in main memory, now and at most, and at most allocated on its device."""
    found = resident()
    if device.type == "cuda":
        found["device_peak_bytes"] = torch.cuda.max_memory_allocated(device)
    return found


def resident() -> dict[str, int]:
    """Main memory of this process. The most that ``getrusage`` knows is what the process had that started it, too."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"resident_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        for name, field in (("resident_bytes", "VmRSS"), ("resident_peak_bytes", "VmHWM")):
            if field in fields:  # not every sandbox has all of them
                found[name] = int(fields[field].split()[0]) * 1024
    return found
