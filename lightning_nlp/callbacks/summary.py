"""A few lines at the end of a run: how fast it was, where the time went, how much of the machine it used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lightning_nlp.run.units import compact, duration, flops, size

if TYPE_CHECKING:
    from lightning_nlp.callbacks.utilization import Utilization


@dataclass
class Totals:
    """What a training of this process did, validations left out."""

    seconds: float = 0.0
    steps: int = 0
    tokens: int = 0
    rows: int = 0
    flops: dict[str, float] = field(default_factory=dict)
    """By convention, on all devices."""
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds by part of a step."""
    padded: int = 0
    positions: int = 0
    memory: dict[str, float] = field(default_factory=dict)


def summary(totals: Totals, used: Utilization | None) -> list[str]:
    """Lines to print; none when nothing was measured."""
    if not totals.steps or totals.seconds <= 0:
        return []
    speed = [f"{compact(totals.tokens / totals.seconds)} tokens/s"]
    if totals.rows:
        speed.append(f"{compact(totals.rows / totals.seconds)} samples/s")
    lines = [f"  speed    {', '.join([*speed, f'{duration(totals.seconds / totals.steps)} a step'])}"]
    if whole := sum(totals.parts.values()):
        shares = {name: 100 * seconds / whole for name, seconds in totals.parts.items()}
        shown = [f"{name} {share:.0f} %" for name, share in shares.items() if share >= 0.5]
        lines.append(f"  time     {', '.join(shown)}")
    if used is not None and (ceiling := used.peak or used.ceiling) and totals.flops.get("palm"):
        possible = totals.seconds * used.devices * ceiling / 100
        palm, causal = (f"{totals.flops[name] / possible:.1f} %" for name in ("palm", "causal"))
        kind = used.kind or "fp64"
        whose = f"the {kind} peak of the device" if used.peak else f"which {kind} matrix products reach here"
        once = "" if causal == palm else f" ({causal} with causal attention counted once)"
        lines.append(f"  MFU      {palm} of {flops(ceiling)}/s, {whose}{once}")
    held = [f"{size(totals.memory[name])} {where}" for name, where in PLACES.items() if name in totals.memory]
    if totals.positions:
        held.append(f"padding {100 * totals.padded / totals.positions:.1f} %")
    return [*lines, "  memory   " + ", ".join(held)] if held else lines


PLACES = {"device_peak_bytes": "on the device at most", "resident_peak_bytes": "resident at most"}
