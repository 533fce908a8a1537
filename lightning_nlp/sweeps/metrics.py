"""Reading `metrics.jsonl` of a trial while it grows."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Tail:
    """Complete new lines of a file, again and again; a half-written last one waits."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._rest = b""

    def lines(self) -> Iterator[dict[str, Any]]:
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except FileNotFoundError:
            return
        self._offset += len(data)
        *complete, self._rest = (self._rest + data).split(b"\n")
        for line in complete:
            try:
                value = json.loads(line)
            except ValueError:  # the half line of a process that was killed, with the next one behind it
                continue
            if isinstance(value, dict) and isinstance(value.get("step"), int):
                yield value


@dataclass
class Curve:
    """What a trial wrote so far. A resumed run repeats steps with the same values; the latest ones count."""

    metric: str
    resource: str = "step"

    def __post_init__(self) -> None:
        self.points: dict[int, float] = {}
        """The metric by resource (steps or tokens)."""
        self.steps: dict[int, int] = {}
        """The optimizer step of each point."""
        self.names: set[str] = set()
        self.step = self.tokens = 0

    def add(self, line: dict[str, Any]) -> None:
        self.step, self.tokens = line["step"], int(line.get("tokens") or 0)
        self.names.update(name for name in line if "/" in name)
        value = line.get(self.metric)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            place = int(line.get(self.resource) or 0)
            self.points[place], self.steps[place] = float(value), self.step

    @property
    def diverged_at(self) -> int | None:
        """The first point that is no finite number."""
        return next((place for place in sorted(self.points) if not math.isfinite(self.points[place])), None)

    def value(self, of: str, minimize: bool) -> float | None:
        """The last value, or the best one; nan when it came to that, None when the metric never appeared."""
        if not self.points:
            return None
        last = self.points[max(self.points)]
        if of == "last" or not math.isfinite(last):
            return last
        finite = [value for value in self.points.values() if math.isfinite(value)]
        return min(finite) if minimize else max(finite)


def read_curve(path: Path, metric: str, resource: str = "step") -> Curve:
    """The whole file at once."""
    curve = Curve(metric, resource)
    for line in Tail(path).lines():
        curve.add(line)
    return curve
