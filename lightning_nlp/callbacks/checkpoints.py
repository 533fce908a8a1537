"""When to save, what to keep, and which counters Lightning's loops get back.

All saves happen between two optimizer steps. The loops' own counters are rewritten from the number of steps done, so a
checkpoint taken before, during or after a validation is the same, and another accumulation only changes a product.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback

from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.run import manifest

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer


class Checkpoints(Callback):
    """Saves ``step-N.ckpt`` every ``checkpoint_every`` steps, at new best validations and at the end."""

    def __init__(self, *, keep_last: int = 2, keep_best: int = 1, minutes: float | None = None) -> None:
        if keep_last < 1 or keep_best < 0:
            raise ConfigError("trainer.keep_last must be at least 1 and trainer.keep_best at least 0")
        if minutes is not None and not 0 < minutes < float("inf"):
            raise ConfigError(f"trainer.checkpoint_every_minutes must be a positive number, not {minutes}")
        self.keep_last, self.keep_best, self.minutes = keep_last, keep_best, minutes
        self._clock = time.monotonic()
        self.metrics: dict[str, float] = {}
        self.validated = 0
        self.saved = -1
        self._seen = 0

    def state_dict(self) -> dict[str, Any]:
        return {"validated": self.validated, "metrics": dict(self.metrics)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.validated = state_dict["validated"]
        self.metrics = dict(state_dict["metrics"])

    # Loop counters --------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if "loops" in checkpoint:
            rewrite_counters(checkpoint, trainer.global_step, trainer.accumulate_grad_batches)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.state.fn == "fit" and "loops" in checkpoint:
            rewrite_counters(checkpoint, checkpoint["global_step"], trainer.accumulate_grad_batches)

    # When -----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # type: ignore[override]
        names = pl_module.monitors() if hasattr(pl_module, "monitors") else None
        if names is not None and trainer.enable_validation and trainer.monitor not in names:
            hint = nearest(trainer.monitor, names) or f" (known: {', '.join(names)})"
            raise ConfigError(f"trainer.monitor '{trainer.monitor}' is not logged by this task{hint}")
        self._seen = self.saved = trainer.global_step
        if trainer.is_global_zero:
            manifest.sweep_up(trainer.run_directory.checkpoints)
        step = trainer.global_step
        if step > 0 and self.validation_due(trainer, step) and self.validated != step:
            self.validate(trainer)  # the run was stopped between this step and its validation

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        step = trainer.global_step
        if step == self._seen:
            return
        self._seen = step
        self.metrics = {}  # those at hand are of an earlier step
        if step < trainer.max_steps and not self.validation_due(trainer, step):  # else after it, with its scores
            self.save_if_due(trainer, step)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:  # type: ignore[override]
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        step = trainer.global_step
        known = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.metrics = {name: value for name, value in known.items() if name.startswith("val/")}
        self.validated = step
        self.save_if_due(trainer, step)

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:  # type: ignore[override]
        step = trainer.global_step
        if trainer.enable_validation and self.validated != step:
            self.validate(trainer)
        self.save(trainer)
        trainer.background.wait()

    def validation_due(self, trainer: Trainer, step: int) -> bool:
        """True when Lightning validates right after this step."""
        return trainer.enable_validation and trainer.validate_every > 0 and step % trainer.validate_every == 0

    def validate(self, trainer: L.Trainer) -> None:
        """Run one validation from within training, as Lightning's own loop does between two batches."""
        trainer.validating = True
        trainer.fit_loop.epoch_loop.val_loop.run()
        trainer.training = True

    def save_if_due(self, trainer: Trainer, step: int) -> None:
        due = trainer.checkpoint_every and step % trainer.checkpoint_every == 0
        if due or self.is_best(trainer) or self.minutes_are_over(trainer):
            self.save(trainer)

    def minutes_are_over(self, trainer: Trainer) -> bool:
        """By the clock of the first process."""
        if self.minutes is None:
            return False
        mine = trainer.is_global_zero and time.monotonic() - self._clock >= 60 * self.minutes
        return bool(trainer.agreement.most(trainer, int(mine)))

    def is_best(self, trainer: Trainer) -> bool:
        """Whether the scores at hand are among the best ``keep_best`` so far."""
        if not self.keep_best or trainer.monitor not in self.metrics:
            return False
        trainer.background.wait()
        directory = trainer.run_directory.checkpoints
        known = manifest.by_score(manifest.published(directory), trainer.monitor, trainer.monitor_mode)
        others, mine = known[: self.keep_best], self.metrics[trainer.monitor]
        best = len(others) < self.keep_best
        if not best:
            last = others[-1].manifest["metrics"][trainer.monitor]
            best = mine < last if trainer.monitor_mode == "min" else mine > last
        return bool(trainer.strategy.broadcast(best and math.isfinite(mine)))

    # What -----------------------------------------------------------------------------------------------------

    def save(self, trainer: Trainer) -> Path | None:
        """Save the current step unless it was saved already; delete what need not be kept."""
        step = trainer.global_step
        directory = trainer.run_directory.checkpoints
        if self.saved == step and step > 0:
            trainer.background.wait()
            if trainer.is_global_zero and self.metrics:  # it was saved before its validation: note the scores
                manifest.annotate(directory, step, self.metrics)
            return None
        path = manifest.checkpoint_path(directory, step)
        trainer.save_checkpoint(path)
        self.saved, self._clock = step, time.monotonic()
        if trainer.is_global_zero:
            trainer.background.submit(lambda: self.saved_at(trainer, step))
        return path

    def saved_at(self, trainer: Trainer, step: int) -> None:
        """After a checkpoint is complete."""
        self.prune(trainer)
        trainer.run_directory.write_status("running", step=step, reason="checkpoint saved")

    def prune(self, trainer: Trainer) -> None:
        """Keep the newest ``keep_last`` and the best ``keep_best``; read from the directory, true after any resume."""
        found = manifest.published(trainer.run_directory.checkpoints)
        scored = manifest.by_score(found, trainer.monitor, trainer.monitor_mode)
        keep = {item.step for item in found[-self.keep_last :]} | {item.step for item in scored[: self.keep_best]}
        for item in found:
            if item.step not in keep:
                manifest.remove(item)


def rewrite_counters(checkpoint: dict[str, Any], step: int, accumulation: int) -> None:
    """Set the fit loop's counters to ``step`` optimizer steps of ``accumulation`` micro-batches, all complete."""
    loop = checkpoint["loops"]["fit_loop"]
    batches = step * accumulation

    def counts(ready: int, keys: dict[str, int]) -> dict[str, int]:
        return {key: ready for key in keys}

    progress = loop["epoch_loop.batch_progress"]
    for part in ("total", "current"):
        progress[part] = counts(batches, progress[part])
    progress["is_last_batch"] = False
    optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    for part in ("total", "current"):
        optimizer["step"][part] = counts(step, optimizer["step"][part])
        optimizer["zero_grad"][part] = counts(step, optimizer["zero_grad"][part])
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step
    epoch = loop["epoch_progress"]
    for part in ("total", "current"):
        epoch[part] = {key: 1 if key in ("ready", "started") else 0 for key in epoch[part]}
    validation = loop["epoch_loop.val_loop.batch_progress"]
    for part in ("total", "current"):
        validation[part] = counts(0, validation[part])
    validation["is_last_batch"] = False
    checkpoint["global_step"] = step
