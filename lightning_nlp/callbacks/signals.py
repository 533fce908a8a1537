"""Signals and the time budget: save between two steps on all ranks alike, then leave with the right exit code."""

from __future__ import annotations

import signal
import threading
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from lightning_nlp.run.exit_codes import BY_SIGNAL, REQUEUE, GracefulExit

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer


class Signals(Callback):
    """SIGTERM, SIGINT, SIGUSR1 and ``time_budget`` set a flag; the flag is looked at when a step is complete.

    A second SIGINT interrupts at once, without saving. Must be the last callback: it saves what the others hold.
    """

    def __init__(self, time_budget: timedelta | None = None) -> None:
        self._budget = time_budget.total_seconds() if time_budget else None
        self._started = time.monotonic()
        self._received: signal.Signals | None = None
        self._previous: dict[int, Any] = {}
        self._seen = 0

    def _handle(self, number: int, frame: Any) -> None:
        if number == signal.SIGINT and self._received == signal.SIGINT:
            raise KeyboardInterrupt
        self._received = signal.Signals(number)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seen = trainer.global_step
        if threading.current_thread() is threading.main_thread():
            for number in BY_SIGNAL:  # after Lightning's own, which end with exit code 0
                self._previous[number] = signal.signal(number, self._handle)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _stop_code(self, trainer: Trainer) -> int:
        """0, or the exit code on which all ranks agree."""
        if trainer.global_step >= trainer.max_steps:
            return 0  # nothing left but the last validation; stopped there, the run would never get its last scores
        code = 0
        if self._received is not None:
            code = BY_SIGNAL[self._received]
        elif self._budget is not None and time.monotonic() - self._started > self._budget:
            code = REQUEUE
        return trainer.agreement.most(trainer, code)

    def _leave(self, trainer: Trainer, code: int) -> None:
        trainer.checkpoints.save(trainer)
        trainer.background.wait()
        reasons = {number: signal.Signals(name).name for name, number in BY_SIGNAL.items()}
        reason = "time budget used up" if self._received is None and code == REQUEUE else f"{reasons[code]} received"
        raise GracefulExit(code, f"{reason}: saved at step {trainer.global_step}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        if trainer.global_step == self._seen:
            return
        self._seen = trainer.global_step
        if code := self._stop_code(trainer):
            self._leave(trainer, code)

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
        if trainer.state.fn == "fit" and trainer.global_step > 0 and (code := self._stop_code(trainer)):
            self._leave(trainer, code)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._restore()
