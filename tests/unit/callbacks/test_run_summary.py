"""The lines at the end of a run."""

from __future__ import annotations

from types import SimpleNamespace

from lightning_nlp.callbacks.summary import Totals, summary


def used(**values):
    return SimpleNamespace(**{"peak": None, "ceiling": 1e11, "devices": 1, "kind": "fp32", **values})


def totals(**values):
    given = {
        "seconds": 50.0,
        "steps": 1000,
        "tokens": 1_000_000,
        "rows": 8000,
        "flops": {"palm": 2e12, "causal": 1.5e12},
        "parts": {"data": 0.1, "forward": 15.0, "backward": 30.0, "optimizer": 3.9, "checkpoint": 0.5, "logging": 0.5},
        "padded": 25,
        "positions": 1000,
        "memory": {"resident_bytes": 5 * 2**20, "resident_peak_bytes": 600 * 2**20},
    }
    return Totals(**{**given, **values})


def test_every_number_is_there_and_right():
    assert summary(totals(), used()) == [
        "  speed    20k tokens/s, 160 samples/s, 50 ms a step",
        "  time     forward 30 %, backward 60 %, optimizer 8 %, checkpoint 1 %, logging 1 %",
        "  MFU      40.0 % of 100 GFLOP/s, which fp32 matrix products reach here (30.0 % with causal attention counted "
        "once)",
        "  memory   600 MiB resident at most, padding 2.5 %",
    ]


def test_a_listed_device_has_a_peak_and_memory_of_its_own():
    memory = {"resident_peak_bytes": 2**30, "device_peak_bytes": 100 * 2**30}
    even = {"palm": 989e12 * 100.0, "causal": 989e12 * 100.0}
    lines = summary(totals(flops=even, memory=memory), used(peak=989e12, ceiling=8e14, devices=4, kind="bf16"))
    assert lines[2] == "  MFU      50.0 % of 989 TFLOP/s, the bf16 peak of the device"
    assert lines[3] == "  memory   100 GiB on the device at most, 1 GiB resident at most, padding 2.5 %"


def test_what_was_not_measured_is_not_said():
    assert summary(Totals(), None) == []
    bare = summary(Totals(seconds=2.0, steps=4, tokens=40), None)
    assert bare == ["  speed    20 tokens/s, 500 ms a step"]
