"""What accelerators can compute at most, by the name their driver gives, from the vendors' data sheets.

Dense figures: data sheets like to print twice as much, "with sparsity", which no training of ours uses. Products of
narrow numbers accumulate in float32. Sources, by row: NVIDIA V100, T4, A100, A30, A40, A10, L4, L40, L40S, H100
(SXM, PCIe, NVL), H200 (SXM, NVL), HGX B200 and GB200 NVL72 data sheets; NVIDIA's GA102, Ada and RTX Blackwell
architecture papers (GeForce, RTX A6000); AWS for A10G; AMD's MI250X and MI300X data sheets. Imports no torch.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Peak(NamedTuple):
    """Dense TFLOP/s by what is multiplied; None where there is no unit for it."""

    bf16: float | None
    fp16: float
    tf32: float | None
    fp32: float


PEAKS: tuple[tuple[str, Peak], ...] = (
    # pattern of the name, in which the first that is found counts
    (r"GB200", Peak(2500.0, 2500.0, 1250.0, 80.0)),
    (r"B200", Peak(2250.0, 2250.0, 1100.0, 75.0)),
    (r"GH200", Peak(989.4, 989.4, 494.7, 66.9)),
    (r"H200 NVL", Peak(835.5, 835.5, 417.5, 60.0)),
    (r"H200", Peak(989.4, 989.4, 494.7, 66.9)),
    (r"H100 NVL", Peak(835.5, 835.5, 417.5, 60.0)),
    (r"H100 PCIE", Peak(756.0, 756.0, 378.0, 51.2)),
    (r"H100|H800", Peak(989.4, 989.4, 494.7, 66.9)),
    (r"H20", Peak(148.0, 148.0, 74.0, 44.0)),
    (r"A100|A800", Peak(312.0, 312.0, 156.0, 19.5)),
    (r"A40", Peak(149.7, 149.7, 74.8, 37.4)),
    (r"A30", Peak(165.0, 165.0, 82.0, 10.3)),
    (r"A10G", Peak(70.0, 70.0, 35.0, 35.0)),
    (r"A10", Peak(125.0, 125.0, 62.5, 31.2)),
    (r"RTX A6000", Peak(154.8, 154.8, 77.4, 38.7)),
    (r"L40S", Peak(362.0, 362.0, 183.0, 91.6)),
    (r"L40", Peak(181.0, 181.0, 90.5, 90.5)),
    (r"L4", Peak(121.0, 121.0, 60.0, 30.3)),
    (r"T4", Peak(None, 65.0, None, 8.1)),
    (r"V100S", Peak(None, 130.0, None, 16.4)),
    (r"V100 PCIE", Peak(None, 112.0, None, 14.0)),
    (r"V100", Peak(None, 125.0, None, 15.7)),
    (r"RTX 5090", Peak(209.5, 209.5, 104.8, 104.8)),
    (r"RTX 4090", Peak(165.2, 165.2, 82.6, 82.6)),
    (r"RTX 4080", Peak(97.5, 97.5, 48.7, 48.7)),
    (r"RTX 3090", Peak(71.0, 71.0, 35.6, 35.6)),
    (r"MI300X|MI325X", Peak(1307.4, 1307.4, 653.7, 163.4)),
    (r"MI250X", Peak(191.5, 191.5, None, 47.9)),  # half a module, which is what is seen as a device
)
LIKE = r"(D|TI|SUPER|LAPTOP|MAX Q|MOBILE)"
"""What, behind a GeForce's number, makes another card of it."""


def peak_of(device: str) -> Peak | None:
    """The row of a device such as ``NVIDIA H200``; None for one that is not listed, or for a slice (MIG) of one."""
    name = " ".join(re.split(r"[^A-Z0-9]+", device.upper()))
    if re.search(r"\bMIG\b|\bVGPU\b", name):
        return None
    for pattern, peak in PEAKS:
        words = "|".join(r"\b.*\b".join(option.split(" ")) for option in pattern.split("|"))
        if re.search(rf"\b(?:{words})\b(?! ?{LIKE}\b)", name):
            return peak
    return None


def peak_flops(device: str, kind: str) -> float | None:
    """Dense FLOP/s of ``device``.

    Args:
        device: name as the driver gives it.
        kind: ``bf16``, ``fp16``, ``tf32`` or ``fp32``.
    """
    peak = peak_of(device)
    found: float | None = None if peak is None else getattr(peak, kind)
    return None if found is None else found * 1e12
