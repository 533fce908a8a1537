"""The table of peaks: names as drivers give them, dense figures, no slices."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightning_nlp.run.peaks import PEAKS, peak_flops, peak_of

NAMES = [  # name of torch.cuda.get_device_name, dense bf16 (or fp16, where there is none) in TFLOP/s
    ("NVIDIA H200", 989.4),
    ("NVIDIA H200 NVL", 835.5),
    ("NVIDIA H20", 148.0),
    ("NVIDIA H100 80GB HBM3", 989.4),
    ("NVIDIA H100 SXM5 80GB", 989.4),
    ("NVIDIA H100 PCIe", 756.0),
    ("NVIDIA H100 NVL", 835.5),
    ("NVIDIA H800", 989.4),
    ("NVIDIA GH200 480GB", 989.4),
    ("NVIDIA B200", 2250.0),
    ("NVIDIA GB200", 2500.0),
    ("NVIDIA A100-SXM4-40GB", 312.0),
    ("NVIDIA A100-SXM4-80GB", 312.0),
    ("NVIDIA A100-PCIE-40GB", 312.0),
    ("NVIDIA A100 80GB PCIe", 312.0),
    ("NVIDIA A10", 125.0),
    ("NVIDIA A10G", 70.0),
    ("NVIDIA A30", 165.0),
    ("NVIDIA A40", 149.7),
    ("NVIDIA RTX A6000", 154.8),
    ("NVIDIA L4", 121.0),
    ("NVIDIA L40", 181.0),
    ("NVIDIA L40S", 362.0),
    ("Tesla T4", 65.0),
    ("Tesla V100-SXM2-16GB", 125.0),
    ("Tesla V100-PCIE-32GB", 112.0),
    ("Tesla V100S-PCIE-32GB", 130.0),
    ("NVIDIA GeForce RTX 4090", 165.2),
    ("NVIDIA GeForce RTX 3090", 71.0),
    ("NVIDIA GeForce RTX 5090", 209.5),
    ("AMD Instinct MI300X", 1307.4),
]


@pytest.mark.parametrize(("name", "tera"), NAMES)
def test_names_of_drivers_are_found(name, tera):
    peak = peak_of(name)
    assert peak is not None
    assert (peak.bf16 or peak.fp16) == tera
    assert peak_flops(name, "fp16") == peak.fp16 * 1e12


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",  # a seventh of one
        "NVIDIA GeForce RTX 4090 Laptop GPU",  # another chip
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 3090 Ti",
        "NVIDIA GeForce RTX 4080 SUPER",
        "NVIDIA A1000",
        "NVIDIA T400",
        "NVIDIA L400",
        "Intel(R) Data Center GPU Max 1550",
        "cpu",
        "",
    ],
)
def test_what_is_not_listed_is_not_guessed(name):
    assert peak_of(name) is None
    assert peak_flops(name, "bf16") is None


def test_no_unit_no_figure():
    assert peak_flops("Tesla T4", "bf16") is None and peak_flops("Tesla T4", "tf32") is None
    assert peak_flops("Tesla T4", "fp32") == 8.1e12


def test_figures_are_dense():
    """Sparse ones are twice as high: narrow numbers are never more than twice tf32, which is never twice too high."""
    for pattern, peak in PEAKS:
        if peak.bf16 is not None:
            assert peak.bf16 == peak.fp16, pattern
        if peak.tf32 is not None:
            assert 1.9 < peak.fp16 / peak.tf32 < 2.1, pattern


def test_every_row_can_be_reached():
    found = {id(peak_of(name)) for name, _ in NAMES} | {id(peak_of(name)) for name in ("RTX 4080", "MI250X")}
    assert found == {id(peak) for _, peak in PEAKS}


def test_the_table_needs_no_torch():
    code = "import sys, lightning_nlp.run.peaks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
