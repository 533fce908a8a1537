"""Where the time of a training step goes: data, forward, backward, optimizer, checkpoints, and what is around them.

Lightning names everything it calls to its profiler; this one keeps the few names that bound the parts of a step, and
costs a look into a dictionary for all others. Every moment belongs to exactly one part, the innermost, so that the
parts add up to the step. On a CPU moments are those of the clock; on CUDA they are events in the stream, which nothing
waits for until they are read, so that a part is the time the device spent on it, or idled in it.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.profilers import Profiler

AROUND = "logging"
"""What belongs to no other part: callbacks, logs and the loop."""
PARTS = ("data", "forward", "backward", "optimizer", "checkpoint", AROUND)
NAMES = {
    "train_dataloader_next": "data",
    "batch_to_device": "data",
    "training_step": "forward",
    "backward": "backward",
    "optimizer_step": "optimizer",
    "save_checkpoint": "checkpoint",
}
"""The last word of Lightning's name of an action, and the part it bounds; ``forward`` and ``backward`` lie within the
optimizer's step, which is what remains of it."""
OWNERS = ("[Strategy]", "[LightningModule]", "[_TrainingEpochLoop]", "save_checkpoint")
"""How those names begin: the same word about a callback, or of the precision, is somebody else's."""


class StepTimes(Profiler):
    """A profiler that measures parts of training steps while it is running, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.clock: Clock | None = None
        self._nothing = nullcontext()
        self._known: dict[str, AbstractContextManager[Any]] = {}

    def begin(self, device: torch.device) -> None:
        """Measure from here on."""
        self.clock = DeviceClock() if device.type == "cuda" else HostClock()

    def read(self) -> dict[str, float]:
        """Seconds of each part since the last call; waits for the device where there is one."""
        return dict.fromkeys(PARTS, 0.0) if self.clock is None else self.clock.read()

    def pause(self) -> None:
        """What follows is no training."""
        if self.clock is not None:
            self.clock.enter(None)

    def resume(self) -> None:
        """Training goes on."""
        if self.clock is not None:
            self.clock.leave()

    def end(self) -> None:
        """Measure nothing any more."""
        self.clock = None

    # What Lightning calls -------------------------------------------------------------------------------------

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]
        found = self._known.get(action_name)
        if found is None:
            part = part_of(action_name)
            found = self._known[action_name] = self._nothing if part is None else Span(self, part)
        return found

    def start(self, action_name: str) -> None:
        if self.clock is not None and (part := part_of(action_name)) is not None:
            self.clock.enter(part)

    def stop(self, action_name: str) -> None:
        if self.clock is not None and part_of(action_name) is not None:
            self.clock.leave()


def part_of(action: str) -> str | None:
    """The part of a step that one of Lightning's actions is, if any."""
    return NAMES.get(action.rpartition(".")[2]) if action.startswith(OWNERS) else None


class Span(AbstractContextManager[None]):
    """Around an action that bounds a part; one object for all its times."""

    def __init__(self, times: StepTimes, part: str) -> None:
        self.times, self.part = times, part

    def __enter__(self) -> None:
        if (clock := self.times.clock) is not None:
            clock.enter(self.part)

    def __exit__(self, *error: object) -> None:
        if (clock := self.times.clock) is not None:
            clock.leave()


class Clock(ABC):
    """Seconds by part; a part may lie within another. ``None`` is a part that is not counted."""

    def __init__(self) -> None:
        self._part: str | None = AROUND
        self._outer: list[str | None] = []

    def enter(self, part: str | None) -> None:
        self._outer.append(self._part)
        self._switch(None if self._part is None else part)  # while nothing counts, what is within does not either

    def leave(self) -> None:
        if self._outer:  # an exception may have left parts open when measuring began anew
            self._switch(self._outer.pop())

    @abstractmethod
    def _switch(self, part: str | None) -> None:
        """From now on time belongs to ``part``."""

    @abstractmethod
    def read(self) -> dict[str, float]:
        """Seconds of all parts since the last time."""


class HostClock(Clock):
    """By the clock of this process."""

    def __init__(self) -> None:
        super().__init__()
        self._since = time.perf_counter()
        self._seconds: dict[str | None, float] = dict.fromkeys((*PARTS, None), 0.0)

    def _switch(self, part: str | None) -> None:
        now = time.perf_counter()
        self._seconds[self._part] += now - self._since
        self._part, self._since = part, now

    def read(self) -> dict[str, float]:
        self._switch(self._part)
        found = {part: self._seconds[part] for part in PARTS}
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        return found


class DeviceClock(Clock):
    """The same by events in the current CUDA stream, read when asked."""

    def __init__(self) -> None:
        super().__init__()
        self._marks: list[tuple[str | None, torch.cuda.Event]] = []
        """Each with the part that begins there."""
        self._free: list[torch.cuda.Event] = []
        self._switch(AROUND)

    def _switch(self, part: str | None) -> None:
        event = self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)
        event.record()
        self._part = part
        self._marks.append((part, event))

    def read(self) -> dict[str, float]:
        self._switch(self._part)
        self._marks[-1][1].synchronize()
        found: dict[str | None, float] = dict.fromkeys((*PARTS, None), 0.0)
        for (part, begin), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            found[part] += begin.elapsed_time(end) / 1e3
        self._free += [event for _, event in self._marks[:-1]]
        self._marks = self._marks[-1:]
        return {part: found[part] for part in PARTS}
