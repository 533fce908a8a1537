"""What a device gives at best, for ``benchmarks.gpu``: a large product in bfloat16, and a copy within its memory."""

from __future__ import annotations

from statistics import median
from typing import Any

import torch

from benchmarks.gpu_tools import Emit, seconds_of


def run(spec: dict[str, Any], device: str, emit: Emit) -> None:
    """Random numbers: zeros are faster than anything real."""
    size = spec["size"]
    left, right = torch.randn(2, size, size, device=device).to(torch.bfloat16)
    target = torch.empty_like(left)
    product = lambda: torch.mm(left, right, out=target)  # noqa: E731
    seconds_of(product, device, 5)
    each = median(seconds_of(product, device, 20) for _ in range(5))
    what = f"{size} x {size} x {size} product, bfloat16"
    emit({"part": "ceiling", "row": what, "value": 2 * size**3 / each / 1e12, "unit": "TFLOP/s"})
    source = torch.randn(size, size * 8, device=device)
    copy = torch.empty_like(source)
    seconds_of(lambda: copy.copy_(source), device, 5)
    each = median(seconds_of(lambda: copy.copy_(source), device, 20) for _ in range(5))
    moved = 2 * source.numel() * source.element_size()
    emit({"part": "ceiling", "row": f"copy of {moved / 2e9:.2g} GB", "value": moved / each / 1e12, "unit": "TB/s"})
