"""What a run did, step by step, as its files tell; and where two runs first differ."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from lightning_nlp.run import manifest

EXACT = ("ids", "tokens", "train/", "val/", "data/")
"""Names, or beginnings of names, of what must be equal bit for bit; times are not among them."""
DATA = ("ids", "tokens")
"""What is equal on any number of ranks, where sums are rounded otherwise."""
Key = tuple[int, str]


def lines(run: Path) -> list[dict[str, Any]]:
    """``metrics.jsonl``, without a line that a kill cut short."""
    path = run / "metrics.jsonl"
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def last_step(run: Path) -> int:
    """The last step that was logged; 0 before the first."""
    return max((line["step"] for line in lines(run)), default=0)


def steps_back(run: Path) -> list[int]:
    """How far each restart went back behind the last step logged before it."""
    steps = [line["step"] for line in lines(run) if "train/loss" in line]
    return [before + 1 - after for before, after in itertools.pairwise(steps) if after <= before]


class Recomputed(AssertionError):
    """A step that was done again gave another value."""

    def __init__(self, key: Key, before: object, after: object) -> None:
        super().__init__(f"step {key[0]} {key[1]} was {before!r}, recomputed {after!r}")
        self.key, self.before, self.after = key, before, after


def history(run: Path, names: tuple[str, ...] = EXACT) -> dict[Key, object]:
    """``{(step, name): value}`` of everything that must be equal bit for bit.

    Args:
        run: its directory.
        names: or beginnings of names, of what is wanted.

    Raises:
        Recomputed: a step was done twice, with different values.
    """
    seen: dict[Key, object] = {}
    for line in lines(run):
        for name, value in line.items():
            if name.startswith(names):
                key = (line["step"], name)
                if key in seen and seen[key] != value:
                    raise Recomputed(key, seen[key], value)
                seen[key] = value
    return seen


def difference(clean: dict[Key, object], found: dict[Key, object], names: tuple[str, ...] = EXACT) -> str | None:
    """Where ``found`` first differs from ``clean``, and what that says of the cause; None when it does not.

    Args:
        clean: of the run that was left alone.
        found: of the other one.
        names: or beginnings of names, of what is compared.
    """
    keys = sorted(key for key in clean.keys() | found.keys() if key[1].startswith(names))
    for step, name in sorted(keys, key=lambda key: (key[0], cause_rank(key[1]))):
        a, b = clean.get((step, name)), found.get((step, name))
        if a != b:
            return f"step {step}: {name} is {b!r} instead of {a!r}{cause(name)}"
    return None


def cause_rank(name: str) -> tuple[int, str]:
    """Causes before effects: what was read, what came out, what was measured."""
    return next((place for place, start in enumerate(EXACT) if name.startswith(start)), len(EXACT)), name


def cause(name: str) -> str:
    """What a first difference in ``name`` means."""
    if name == "ids":
        return " (other examples were read)"
    if name.startswith("train/"):
        return " (the same examples, computed otherwise: random numbers, threads, an operation that does not repeat)"
    return ""


def weights_difference(clean: Path, other: Path) -> str | None:
    """The first tensor of the last checkpoints, optimizer state included, that is not equal bit for bit."""
    import torch

    newest = [manifest.published(run / "checkpoints")[-1] for run in (clean, other)]
    if newest[0].step != newest[1].step:
        return f"the last checkpoint is of step {newest[1].step} instead of {newest[0].step}"
    a, b = (flat(torch.load(found.path, map_location="cpu", weights_only=True)) for found in newest)
    for name in a.keys() | b.keys():
        if name not in a or name not in b or not torch.equal(a[name], b[name]):
            return f"the last checkpoints differ in {name}"
    return None


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """All tensors in nested dictionaries and lists, by path."""
    import torch

    if isinstance(value, torch.Tensor):
        return {name: value}
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {path: tensor for key, part in inside for path, tensor in flat(part, f"{name}/{key}").items()}
