"""What all parts of ``benchmarks.gpu`` measure with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Emit = Callable[[dict[str, Any]], None]


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def seconds_of(step: Callable[[], Any], device: str, steps: int) -> float:
    """Seconds of one step, averaged over ``steps`` that follow each other without a pause."""
    wait(device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return (time.perf_counter() - started) / steps


def relative_error(found: Tensor, exact: Tensor) -> float:
    """``|found - exact| / |exact|`` (Euclidean); NaN where a number is not finite."""
    found, exact = found.detach().double(), exact.detach().double()
    return float((found - exact).norm() / exact.norm().clamp(min=1e-300))


def reason(error: BaseException) -> str:
    """An exception as one line."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:300]
