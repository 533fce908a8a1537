"""What a machine reaches in plain matrix products, measured: a ceiling for any device, listed or not."""

from __future__ import annotations

import functools
import time

import torch

SIZES, DEVICE_SIZES = (512, 1024), (1024, 2048, 4096, 8192)
"""Square matrices tried in turn on a CPU, and elsewhere; the best rate counts."""
REPETITIONS = 16
"""Of each size. Small products are over before another process gets their core."""
BUDGET, DEVICE_BUDGET = 0.12, 0.3
"""Seconds after which no more is tried."""


def matmul_flops(device: torch.device | str, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest square matrix product seen within a fraction of a second.

    Measured once a process for a device, dtype, number of threads and kind of float32 product. One thread is timed by
    the CPU it used, several by the clock: other work on the machine then makes the ceiling too low.

    Args:
        device: of the operands.
        dtype: of the operands; products of float32 are made as ``torch.set_float32_matmul_precision`` says.
    """
    return _measured(str(device), dtype, torch.get_num_threads(), torch.get_float32_matmul_precision())


@functools.cache
def _measured(device: str, dtype: torch.dtype, threads: int, products: str) -> float:
    kind = torch.device(device).type
    sizes, budget = (SIZES, BUDGET) if kind == "cpu" else (DEVICE_SIZES, DEVICE_BUDGET)
    best, started = 0.0, time.perf_counter()
    with torch.inference_mode():
        for size in sizes:
            try:
                # Numbers of all kinds: zeros and ones cost a device less power. And no random state is touched.
                left = torch.arange(size * size, dtype=torch.float32, device=device).sin_().view(size, size).to(dtype)
                right, out = left.clone(), torch.empty_like(left)  # fresh memory for each result would be measured too
            except torch.OutOfMemoryError:  # a model fills the device: smaller products have to do
                break
            for repetition in range(REPETITIONS):
                seconds = _seconds(kind, left, right, out)
                if repetition:  # the first one wakes threads and chooses kernels
                    best = max(best, 2 * size**3 / seconds)
                if best and time.perf_counter() - started > budget:
                    return best
    return best


def _seconds(kind: str, left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> float:
    """Of one product, the work of a device included."""
    if kind == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        torch.mm(left, right, out=out)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3
    clock = time.thread_time if kind == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    torch.mm(left, right, out=out)
    if kind != "cpu":
        out[0, 0].item()  # waits
    return max(clock() - started, 1e-9)
