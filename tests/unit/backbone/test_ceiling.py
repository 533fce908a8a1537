"""The measured ceiling: fast to get, kept, and without a trace in random states."""

from __future__ import annotations

import time

import pytest
import torch

from lightning_nlp.backbone import ceiling
from lightning_nlp.backbone.ceiling import matmul_flops


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_what_a_product_reaches(dtype):
    left = torch.randn(512, 512).to(dtype)
    best = min(timed(left) for _ in range(20))
    assert matmul_flops("cpu", dtype) > 0.4 * 2 * 512**3 / best  # other processes may take half


def timed(x: torch.Tensor) -> float:
    started = time.perf_counter()
    torch.mm(x, x)
    return time.perf_counter() - started


def test_it_is_measured_once_and_soon(monkeypatch):
    ceiling._measured.cache_clear()
    started = time.process_time()
    first = matmul_flops("cpu", torch.float32)
    assert time.process_time() - started < 0.5 * torch.get_num_threads()
    monkeypatch.setattr(ceiling, "_seconds", lambda *args: pytest.fail("measured again"))
    assert matmul_flops(torch.device("cpu"), torch.float32) == first


def test_random_numbers_stay_as_they_are():
    ceiling._measured.cache_clear()
    before = torch.get_rng_state()
    matmul_flops("cpu", torch.float32)
    assert torch.equal(before, torch.get_rng_state())


def test_a_full_device_is_measured_with_smaller_products(monkeypatch):
    monkeypatch.setattr(ceiling, "SIZES", (64, 10**9))
    ceiling._measured.cache_clear()

    def make(size, **options):
        if size > 10**6:
            raise torch.OutOfMemoryError
        return arange(size, **options)

    arange = torch.arange
    monkeypatch.setattr(ceiling.torch, "arange", make)
    assert matmul_flops("cpu", torch.float32) > 0
    ceiling._measured.cache_clear()
