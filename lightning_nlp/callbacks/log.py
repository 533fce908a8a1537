"""Numbers of a run: ``metrics.jsonl`` and TensorBoard scalars, from one place, in optimizer steps and tokens."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from lightning_nlp.callbacks.tensorboard import RunTensorBoard
from lightning_nlp.run.ranks import data_group

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer


class MetricsLog(Callback):
    """Collects sums in tensors every step and writes every ``log_every_n_steps``: no synchronisation in between."""

    def __init__(self) -> None:
        self._tokens: torch.Tensor | None = None
        self._restored_tokens = 0
        self._ids = 0
        self._padding = [0, 0]
        self._seen = 0
        self._clock = 0.0
        self._clock_tokens = 0
        self._clock_step = 0
        self.last: dict[str, float] = {}
        """The latest values written, for the progress line."""

    @property
    def tokens(self) -> int:
        """Non-pad tokens over all data ranks since the beginning of the run."""
        return self._restored_tokens + (int(self._tokens) if self._tokens is not None else 0)

    def state_dict(self) -> dict[str, Any]:
        return {"tokens": self.tokens}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored_tokens = state_dict["tokens"]

    def setup(self, trainer: Trainer, pl_module: L.LightningModule, stage: str) -> None:  # type: ignore[override]
        self._restored_tokens, self._tokens = 0, None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:  # type: ignore[override]
        self._seen = self._clock_step = trainer.global_step
        self._ids, self._padding = 0, [0, 0]
        self._restart_clock()
        for logger in trainer.loggers:
            if isinstance(logger, RunTensorBoard) and trainer.is_global_zero:
                logger.purge_after(trainer.global_step)
                if trainer.global_step == 0 and hasattr(pl_module, "plain_hyperparameters"):
                    logger.write_hyperparameters(run_settings(trainer, pl_module), pl_module.monitors())

    def _restart_clock(self) -> None:
        self._clock = time.perf_counter()
        self._clock_tokens = self.tokens

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        if not isinstance(batch, dict) or "row_ids" not in batch:  # somebody's own data: no identities to speak of
            return
        step = trainer.global_step + 1
        if step % trainer.log_every and step != trainer.max_steps:  # reading numbers back would wait for the device
            return
        for row, ids in zip(batch["row_ids"].tolist(), batch["example_ids"], strict=True):
            self._ids = (self._ids + row_hash(row, ids)) % HASH_RANGE
        if "padding" in batch:
            self._padding = [mine + more for mine, more in zip(self._padding, batch["padding"], strict=True)]

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        step = trainer.global_step
        if step == self._seen:
            return
        self._seen = step
        totals = getattr(pl_module, "step_totals", None)  # a module of one's own has none
        if totals is not None:
            self._tokens = totals[2].clone() if self._tokens is None else self._tokens + totals[2]
        if step % trainer.log_every == 0 or step == trainer.max_steps:
            self._write_step(trainer, pl_module, totals)
        self._ids, self._padding = 0, [0, 0]

    def _write_step(self, trainer: Trainer, module: Any, totals: torch.Tensor | None) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        own = data.counts(trainer.global_step) if hasattr(data, "counts") else {}  # somebody's own data counts nothing
        sums = torch.tensor([self._ids, *self._padding, *own.values()], device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums, data_group(trainer), reduce_op="sum")  # type: ignore[assignment]
        ids, padded, positions, *counted = sums.tolist()
        counts = dict(zip(own, counted, strict=True))
        elapsed = max(time.perf_counter() - self._clock, 1e-9)
        tokens = self.tokens
        values = {"train/learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"])}
        if totals is not None:
            loss_sum, count, _ = totals.tolist()
            values |= {"train/loss": loss_sum / max(count, 1), "train/grad_norm": float(module.grad_norm)}
            module.guard.check()
            if module.guard.skipped:
                values["train/skipped_steps"] = module.guard.skipped
        if positions:
            values["data/padding"] = padded / positions
        speed = {
            "speed/tokens_per_second": (tokens - self._clock_tokens) / elapsed,
            "speed/step_seconds": elapsed / max(trainer.global_step - self._clock_step, 1),
        }
        self._clock_step = trainer.global_step
        self.last = {**self.last, **values, **speed}
        fates = data.numbers(counts) if counts else {}
        for logger in trainer.loggers:
            logger.log_metrics({**values, **speed, **fates, "train/tokens": tokens}, step=trainer.global_step)
        self._append(trainer, {"ids": f"{ids % HASH_RANGE:015x}", **values, **speed, **fates})
        if counts:
            data.check_budget(counts)
        self._restart_clock()

    def on_validation_start(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        self._validation_start = time.perf_counter()

    def on_validation_end(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        self._evaluated(trainer, "val/")
        if trainer.state.fn == "fit":
            self._clock += time.perf_counter() - self._validation_start  # tokens/s speaks of training

    def on_test_end(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        self._evaluated(trainer, "test/")

    def _evaluated(self, trainer: Trainer, prefix: str) -> None:
        if trainer.sanity_checking:
            return
        known = trainer.callback_metrics.items()
        values = {name: float(value) for name, value in known if name.startswith(prefix)}
        self.last = {**self.last, **values}
        if trainer.state.fn == "fit":
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)
            self._append(trainer, values)

    def _append(self, trainer: Trainer, values: dict[str, Any]) -> None:
        if not trainer.is_global_zero:
            return
        line = {"step": trainer.global_step, "tokens": self.tokens, "time": round(time.time(), 3), **values}
        path = trainer.run_directory.metrics
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def run_settings(trainer: Trainer, module: Any) -> dict[str, Any]:
    """What one would compare runs by."""
    data = getattr(trainer, "datamodule", None)
    names = ("global_batch_size", "micro_batch_size", "max_length")
    batches = {name: getattr(data, name) for name in names if hasattr(data, name)}
    seed = os.environ.get("PL_GLOBAL_SEED")
    return {
        **module.plain_hyperparameters(),
        "data": batches,
        "max_steps": trainer.max_steps,
        "seed": int(seed) if seed else None,
    }


HASH_RANGE = 2**58
"""Sums over up to 32 ranks stay inside int64."""


def row_hash(row: int, ids: list[str]) -> int:
    """A number for "these examples at this place of the global order"; sums of them do not depend on ranks."""
    text = f"{row}:{'|'.join(ids)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % HASH_RANGE
