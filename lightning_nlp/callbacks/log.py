"""Numbers of a run: ``metrics.jsonl`` and TensorBoard scalars, from one place, in optimizer steps and tokens."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback

from lightning_nlp.backbone.counting import Work
from lightning_nlp.callbacks.communication import Communication
from lightning_nlp.callbacks.step_times import StepTimes
from lightning_nlp.callbacks.summary import Totals, summary
from lightning_nlp.callbacks.tensorboard import RunTensorBoard
from lightning_nlp.callbacks.utilization import Utilization, memory_of, work_of
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
        self._rows = 0
        self._work = NO_WORK
        self._seen = 0
        self._clock = 0.0
        self._clock_tokens = 0
        self._clock_step = 0
        self.last: dict[str, float] = {}
        """The latest values written, for the progress line."""
        self.totals = Totals()
        self.used: Utilization | None = None
        self._times: StepTimes | None = None
        self._communication: Communication | None = None
        self._sent: float | None = None

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
        self._ids, self._padding, self._rows, self._work = 0, [0, 0], 0, NO_WORK
        self.used, self.totals = Utilization(trainer, pl_module), Totals()
        self._communication, self._sent = Communication(trainer), None
        profiler: Any = trainer.profiler  # type: ignore[attr-defined]
        self._times = profiler if isinstance(profiler, StepTimes) else None
        for logger in trainer.loggers:
            if isinstance(logger, RunTensorBoard) and trainer.is_global_zero:
                logger.purge_after(trainer.global_step)
                if trainer.global_step == 0 and hasattr(pl_module, "plain_hyperparameters"):
                    logger.write_hyperparameters(run_settings(trainer, pl_module), pl_module.monitors())
        if (device := trainer.strategy.root_device).type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)  # from here on it is that of training
        if self._times is not None:
            self._times.begin(device)
        self._clock, self._clock_tokens = time.perf_counter(), self.tokens

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        if not isinstance(batch, dict) or "row_ids" not in batch:  # somebody's own data: no identities to speak of
            return
        self._rows += len(batch["row_ids"])
        step = trainer.global_step + 1
        if step % trainer.log_every and step != trainer.max_steps:  # reading numbers back would wait for the device
            return
        for row, ids in zip(batch["row_ids"].tolist(), batch["example_ids"], strict=True):
            self._ids = (self._ids + row_hash(row, ids)) % HASH_RANGE
        if "padding" in batch:
            self._padding = [mine + more for mine, more in zip(self._padding, batch["padding"], strict=True)]
        if self.used is not None and self.used.weights is not None:
            self._work = [mine + more for mine, more in zip(self._work, work_of(batch), strict=True)]

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
            self._ids, self._padding, self._rows, self._work = 0, [0, 0], 0, NO_WORK

    def _write_step(self, trainer: Trainer, module: Any, totals: torch.Tensor | None) -> None:
        data: Any = getattr(trainer, "datamodule", None)
        own = data.counts(trainer.global_step) if hasattr(data, "counts") else {}  # somebody's own data counts nothing
        numbers = [self._ids, *self._padding, self._rows, *self._work, *own.values()]
        sums = torch.tensor(numbers, device=trainer.strategy.root_device)
        if trainer.world_size > 1:
            sums = trainer.strategy.reduce(sums, data_group(trainer), reduce_op="sum")  # type: ignore[assignment]
        ids, padded, positions, rows, *more = sums.tolist()
        work, counted = more[: len(NO_WORK)], more[len(NO_WORK) :]
        counts = dict(zip(own, counted, strict=True))
        now, tokens = time.perf_counter(), self.tokens
        elapsed, self._clock = max(now - self._clock, 1e-9), now  # writing what follows is part of the next steps
        values = {"train/learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"])}
        if totals is not None:
            loss_sum, count, _ = totals.tolist()
            values |= {"train/loss": loss_sum / max(count, 1), "train/grad_norm": float(module.grad_norm)}
            module.guard.check()
            if module.guard.skipped:
                values["train/skipped_steps"] = module.guard.skipped
        if positions:
            values["data/padding"] = padded / positions
            self.totals.padded += padded
            self.totals.positions += positions
        speed = self._speed(trainer, elapsed, tokens - self._clock_tokens, rows, Work(*work))
        self._clock_step, self._clock_tokens = trainer.global_step, tokens
        self.last = {**self.last, **values, **speed}
        fates = data.numbers(counts) if counts else {}
        for logger in trainer.loggers:
            logger.log_metrics({**values, **speed, **fates, "train/tokens": tokens}, step=trainer.global_step)
        self._append(trainer, {"ids": f"{ids % HASH_RANGE:015x}", **values, **speed, **fates})
        if counts:
            data.check_budget(counts)

    def _speed(self, trainer: Trainer, elapsed: float, tokens: int, rows: int, work: Work) -> dict[str, float]:
        """What was done in ``elapsed`` seconds since the last line, by the second and by the step."""
        steps = max(trainer.global_step - self._clock_step, 1)
        values = {"speed/tokens_per_second": tokens / elapsed, "speed/step_seconds": elapsed / steps}
        if rows:
            values["speed/samples_per_second"] = rows / elapsed
        rates = {} if self.used is None else self.used.rates(work, tokens / elapsed)
        if self.used is not None:
            values |= {f"speed/{name}": share for name, share in self.used.shares(rates).items()}
        parts = self._parts(trainer, steps)
        memory = over_ranks(trainer, memory_of(trainer.strategy.root_device), "max")
        memory = {name: int(number) for name, number in memory.items()}
        run = self.totals
        run.seconds, run.steps = run.seconds + elapsed, run.steps + steps
        run.tokens, run.rows = run.tokens + tokens, run.rows + rows
        run.flops = {name: run.flops.get(name, 0.0) + rate * elapsed for name, rate in rates.items()}
        run.parts = {name: run.parts.get(name, 0.0) + steps * seconds for name, seconds in parts.items()}
        run.memory = memory
        values |= {f"step_time/{name}": seconds for name, seconds in parts.items()}
        return values | {f"memory/{name}": number for name, number in memory.items()}

    def _parts(self, trainer: Trainer, steps: int) -> dict[str, float]:
        """Seconds of the parts of a step, means over the steps since the last line and over ranks."""
        if self._times is None or self._communication is None:  # the user measures with a profiler of their own
            return {}
        parts = {name: seconds / steps for name, seconds in self._times.read().items()}
        self._sent = self._communication.read() or self._sent
        if trainer.world_size > 1 and self._communication.known:
            parts["communication"] = min(self._sent or 0.0, parts["backward"])
            parts["backward"] -= parts["communication"]
        return over_ranks(trainer, parts, "mean")

    def summary(self) -> list[str]:
        """Lines about the training of this process."""
        return summary(self.totals, self.used)

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """What is done inside does not count as training in the numbers of speed."""
        started = time.perf_counter()
        if self._times is not None:
            self._times.pause()
        yield
        if self._times is not None:
            self._times.resume()
        self._clock += time.perf_counter() - started

    def on_validation_start(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        self._validation_start = time.perf_counter()
        if self._times is not None:
            self._times.pause()

    def on_validation_end(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        self._evaluated(trainer, "val/")
        if trainer.state.fn == "fit":
            self._clock += time.perf_counter() - self._validation_start  # tokens/s speaks of training
            if self._times is not None:
                self._times.resume()

    def on_train_end(self, trainer: Trainer, pl_module: L.LightningModule) -> None:  # type: ignore[override]
        self._stop_measuring()

    def on_exception(self, trainer: Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:  # type: ignore[override]
        self._stop_measuring()

    def _stop_measuring(self) -> None:
        if self._times is not None:
            self._times.end()

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


def over_ranks(trainer: Trainer, values: dict[str, Any], how: str) -> dict[str, Any]:
    """``values`` of all ranks, which have the same names, reduced by ``mean`` or ``max``."""
    if trainer.world_size == 1 or not values:
        return values
    packed = torch.tensor(list(values.values()), dtype=torch.float64, device=trainer.strategy.root_device)
    reduced = trainer.strategy.reduce(packed, reduce_op=how)
    return dict(zip(values, reduced.tolist(), strict=True))  # type: ignore[union-attr]


NO_WORK = [0, 0, 0, 0]
"""Rows, tokens, labels and tokens of sources."""
HASH_RANGE = 2**58
"""Sums over up to 32 ranks stay inside int64."""


def row_hash(row: int, ids: list[str]) -> int:
    """A number for "these examples at this place of the global order"; sums of them do not depend on ranks."""
    text = f"{row}:{'|'.join(ids)}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) % HASH_RANGE
