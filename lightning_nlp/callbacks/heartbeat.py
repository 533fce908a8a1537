"""Which process was last seen where: so that a job that waits for a lost one can say for whom.

Every process notes its step in the run directory every few seconds. When waiting for the others takes longer than the
strategy's ``timeout``, those that still answer note that they wait; whoever does not is named.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.callbacks import Callback

from lightning_nlp.errors import StalledError

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer

SECONDS = 5.0
"""Between notes."""
GRACE = 3.0
"""Seconds in which all who wait have said so: they began to wait together."""
SIGNS = ("timed out", "timeout")
"""What collectives say that waited too long."""


class Heartbeats(Callback):
    """Notes ``{"step", "time", "waits"}`` in ``heartbeats/RANK.json`` of a run of several processes."""

    def __init__(self) -> None:
        self._last = 0.0

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        if trainer.world_size > 1 and (now := time.monotonic()) - self._last > SECONDS:
            self._last = now
            note(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # type: ignore[override]
        if trainer.world_size > 1:
            note(trainer)  # instead of what a run before, which stalled, may have left

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:  # type: ignore[override]
        if trainer.world_size > 1:
            path(trainer, trainer.global_rank).unlink(missing_ok=True)


def path(trainer: Trainer, rank: int) -> Path:
    """The note of one process."""
    return trainer.run_directory.path / "heartbeats" / f"{rank}.json"


def note(trainer: Trainer, waits: bool = False) -> None:
    """Say where this process is."""
    mine = path(trainer, trainer.global_rank)
    mine.parent.mkdir(parents=True, exist_ok=True)
    mine.write_text(json.dumps({"step": trainer.global_step, "time": time.time(), "waits": waits}))


def explain(trainer: Trainer, error: Exception) -> StalledError | None:
    """If ``error`` is about waiting for others too long: who they are, and where they were last seen."""
    if trainer.world_size == 1 or not any(sign in str(error).lower() for sign in SIGNS):
        return None
    note(trainer, waits=True)
    time.sleep(GRACE)
    lost = []
    for rank in range(trainer.world_size):
        try:
            seen = json.loads(path(trainer, rank).read_text())
        except (OSError, ValueError):
            lost.append(f"process {rank} (never seen)")
            continue
        if not seen["waits"]:
            lost.append(f"process {rank} (last seen at step {seen['step']}, {time.time() - seen['time']:.0f} s ago)")
    whom = " and ".join(lost) or "each other"
    return StalledError(
        f"stalled after step {trainer.global_step}: waited in vain for {whom}; go on from the last checkpoint"
    )
