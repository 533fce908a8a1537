"""``--profile N``: a trace of N training steps by PyTorch's profiler, in the run, and what took longest in them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from torch.profiler import ProfilerActivity, schedule

from lightning_nlp.callbacks.log import MetricsLog
from lightning_nlp.errors import ConfigError

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer

WARM_UP = 5
"""Steps before the first that is recorded: allocators, kernels and caches have settled then."""
SHOWN = 10
"""Lines of the table."""


class ProfileSteps(Callback):
    """Records steps after some of warm-up and writes ``profile/step-S.rank-R.pt.trace.json.gz`` on every rank.

    Perfetto opens the file; TensorBoard's profiler plugin finds it by its name.

    Args:
        steps: optimizer steps to record.

    Raises:
        ConfigError: ``steps`` is below 1; or, when training starts, the run has too few left.
    """

    def __init__(self, steps: int) -> None:
        if steps < 1:
            raise ConfigError(f"--profile records at least 1 step, not {steps}")
        self.steps = steps
        self._profiler: Any = None
        self._begin = self._seen = 0

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # type: ignore[override]
        self._seen = trainer.global_step
        self._begin = trainer.global_step + WARM_UP
        if (left := trainer.max_steps - trainer.global_step) < WARM_UP + self.steps:
            raise ConfigError(
                f"--profile {self.steps} needs {WARM_UP + self.steps} steps, {WARM_UP} of them warm-up; "
                f"the run has {max(left, 0)} left"
            )

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        # The profiler warms up too, in the step before the first that it keeps.
        if self._profiler is None and self._seen == trainer.global_step == self._begin - 1:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            plan = schedule(wait=0, warmup=1, active=self.steps, repeat=1)
            self._profiler = torch.profiler.profile(
                activities=activities, schedule=plan, on_trace_ready=lambda profiler: self._write(trainer, profiler)
            )
            # Its own lines about starting and stopping are above every level that has a name.
            os.environ.setdefault("KINETO_LOG_LEVEL", "99")
            with log_of(trainer).left_out():
                self._profiler.start()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        if self._profiler is not None:
            with log_of(trainer).left_out():
                self._profiler.step()  # writes after the last one
                if trainer.global_step == self._begin + self.steps:
                    self._stop()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._stop()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._stop()

    def _stop(self) -> None:
        profiler, self._profiler = self._profiler, None
        if profiler is not None:
            profiler.on_trace_ready = None  # what is recorded so far is no whole number of steps
            profiler.stop()

    def _write(self, trainer: Trainer, profiler: Any) -> None:
        first = self._begin + 1
        folder: Path = trainer.run_directory.path / "profile"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{first}.rank-{trainer.global_rank}.pt.trace.json.gz"
        profiler.export_chrome_trace(str(path))
        if trainer.is_global_zero:
            lines = [f"profile of steps {first} to {self._begin + self.steps}: {path} (opens in ui.perfetto.dev)"]
            clear = "\r\x1b[2K" if sys.stderr.isatty() else ""
            print(clear + "\n".join([*lines, *table(profiler.key_averages(), self.steps)]), file=sys.stderr, flush=True)


def log_of(trainer: Any) -> MetricsLog:
    """The callback that measures speed."""
    (log,) = (callback for callback in trainer.callbacks if isinstance(callback, MetricsLog))
    return log


def table(averages: Any, steps: int) -> list[str]:
    """The entries that took longest by themselves: calls and milliseconds a step, share of the time of all.

    Args:
        averages: ``key_averages()`` of a profiler.
        steps: that were recorded.
    """
    on_device = sum(entry.self_device_time_total for entry in averages) > 0
    where = "device" if on_device else "CPU"
    found: dict[str, tuple[int, float]] = {}
    for entry in averages:
        taken = entry.self_device_time_total if on_device else entry.self_cpu_time_total
        # A step by itself is what no operator was running in.
        name = "(Python, between operators)" if entry.key.startswith("ProfilerStep") else entry.key
        calls, before = found.get(name, (0, 0.0))
        found[name] = calls + entry.count, before + taken
    whole = sum(taken for _, taken in found.values()) or 1.0
    lines = [f"  {'operator':<44} {'calls/step':>10} {where + ' ms/step':>14} {'share':>6}"]
    for name, (calls, taken) in sorted(found.items(), key=lambda entry: -entry[1][1])[:SHOWN]:
        name = name if len(name) <= 44 else f"{name[:41]}..."
        lines.append(f"  {name:<44} {calls / steps:>10.4g} {taken / steps / 1e3:>14.3f} {taken / whole:>6.1%}")
    return lines
