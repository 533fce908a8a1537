"""One line that says where the run is: optimizer steps, tokens per second, time left."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from lightning_nlp.callbacks.log import MetricsLog
from lightning_nlp.run.units import clock, compact

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer


class Progress(Callback):
    """Rewrites one line on a terminal; prints a line now and then elsewhere, so that log files stay readable."""

    def __init__(self) -> None:
        self._seen = 0
        self._first = 0
        self._started = 0.0
        self._printed = 0.0
        self._validating = 0.0
        self._paused = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        self._seen = self._first = trainer.global_step
        self._started, self._printed, self._paused = time.monotonic(), 0.0, 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        step = trainer.global_step
        if step == self._seen or not trainer.is_global_zero:
            return
        self._seen = step
        if step % trainer.log_every and step != trainer.max_steps:
            return
        now = time.monotonic()
        if now - self._printed < (0.2 if sys.stderr.isatty() else 5.0) and step != trainer.max_steps:
            return
        self._printed = now
        per_step = (now - self._started - self._paused) / max(step - self._first, 1)
        self._show(self.line(trainer, step, per_step * (trainer.max_steps - step)))

    def line(self, trainer: Trainer, step: int, seconds_left: float) -> str:
        """``step 120/600  loss 3.214  lr 9.8e-04  12.3k tokens/s  1:05 left``."""
        last = trainer_log(trainer)
        loss, rate = last.get("train/loss", float("nan")), last.get("train/learning_rate", float("nan"))
        speed = compact(last.get("speed/tokens_per_second", 0.0))
        width = len(str(trainer.max_steps))
        return (
            f"step {step:>{width}}/{trainer.max_steps}  loss {loss:.4f}  lr {rate:.1e}  "
            f"{speed} tokens/s  {clock(seconds_left)} left"
        )

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        self._paused += time.monotonic() - self._validating
        if not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        # Of each task, or source of a mixture, the loss is enough for a line; the others stand in metrics.jsonl.
        brief = {name: value for name, value in values.items() if name.count("/") == 1 or name.endswith("/loss")}
        shown = "  ".join(f"{name} {value:.4f}" for name, value in brief.items())
        self._show(f"step {trainer.global_step}/{trainer.max_steps}  {shown}", keep=True)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._finish_line()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._finish_line()

    def _show(self, text: str, *, keep: bool = False) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[2K{text}", end="\n" if keep else "", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def _finish_line(self) -> None:
        if sys.stderr.isatty() and self._printed:
            print(file=sys.stderr)
            self._printed = 0.0


def trainer_log(trainer: Trainer) -> dict[str, float]:
    """The latest values of the log callback."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, MetricsLog):
            return callback.last
    return {}
