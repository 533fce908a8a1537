"""Lightning's Trainer with this platform's units, order, checkpoints, signals and logs attached in code.

Everything of Lightning's Trainer stays reachable. What is added counts in optimizer steps and tokens; what would be a
second way to say the same (``accumulate_grad_batches`` beside a global batch, ``val_check_interval``) is refused.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment

import lightning_nlp
from lightning_nlp.callbacks import heartbeat
from lightning_nlp.callbacks.checkpoints import Checkpoints
from lightning_nlp.callbacks.compile import CompileBlocks
from lightning_nlp.callbacks.ema import EMA
from lightning_nlp.callbacks.heartbeat import Heartbeats
from lightning_nlp.callbacks.hooks import skip_empty_hooks
from lightning_nlp.callbacks.log import MetricsLog
from lightning_nlp.callbacks.progress import Progress
from lightning_nlp.callbacks.random_state import RandomState
from lightning_nlp.callbacks.recompute import Recompute
from lightning_nlp.callbacks.samples import Samples
from lightning_nlp.callbacks.signals import Signals
from lightning_nlp.callbacks.step_times import StepTimes
from lightning_nlp.callbacks.tensorboard import RunTensorBoard
from lightning_nlp.data.module import TextDataModule
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.guard import Policy
from lightning_nlp.precision import BFloat16Master, PrecisionName, check_precision, settle
from lightning_nlp.run import allocator, manifest
from lightning_nlp.run.agreement import Agreement
from lightning_nlp.run.background import Background, snapshot
from lightning_nlp.run.checkpoint_io import PlainCheckpointIO
from lightning_nlp.run.choice import choose
from lightning_nlp.run.directory import RunDirectory
from lightning_nlp.run.duration import parse_duration
from lightning_nlp.run.ranks import data_rank, data_ranks
from lightning_nlp.strategies.names import check_strategy


class Trainer(L.Trainer):
    """Trainer whose runs can be stopped anywhere and go on as if nothing had happened.

    Args:
        max_steps: optimizer steps of the run.
        max_tokens: non-pad tokens of the run, over all data ranks; becomes ``max_steps`` where every step has the same
            number (packed data).
        max_epochs: becomes ``max_steps`` where the number of examples is known; refused, with the reason, elsewhere.
        validate_every: optimizer steps between validations (0: only at the end).
        checkpoint_every: optimizer steps between checkpoints (default: ``validate_every``).
        checkpoint_every_minutes: minutes between further checkpoints, however many steps that is.
        async_checkpoints: write checkpoints while training goes on; they are copied to main memory first.
        keep_last: newest checkpoints kept.
        keep_best: best checkpoints by ``monitor`` kept besides.
        monitor: validation metric that decides what is best and when to stop early.
        monitor_mode: whether a lower (``min``) or higher (``max``) value is better.
        patience: stop after this many validations without a better value (default: never).
        time_budget: wall-clock limit such as ``90m``, ``1h30m`` or ``45s``; the run then saves and exits with code 85.
        non_finite: what to do when gradients are not finite: ``stop``, with nothing saved since, or ``skip`` the step.
        log_every_n_steps: optimizer steps between lines of ``metrics.jsonl`` and TensorBoard scalars.
        precision: Lightning's names, or ``bf16-master``: bfloat16 computation, float32 master weights.
        tune_allocator: keep freed memory in this process (glibc only): faster steps on a CPU, memory stays at its peak.
        compile: ``blocks`` compiles each block of the backbone when training starts.
        activation_checkpointing: ``full``: blocks keep their inputs and compute the rest again in the backward pass;
            ``selective``: they keep their matrix products too. Less memory for more time.
        compile_backend: what ``torch.compile`` hands the blocks to.
        default_root_dir: the run directory.
    """

    def __init__(
        self,
        *,
        max_steps: int | None = None,
        max_tokens: int | None = None,
        max_epochs: int | None = None,
        validate_every: int = 500,
        checkpoint_every: int | None = None,
        checkpoint_every_minutes: float | None = None,
        async_checkpoints: bool = False,
        keep_last: int = 2,
        keep_best: int = 1,
        monitor: str = "val/loss",
        monitor_mode: Literal["min", "max"] = "min",
        patience: int | None = None,
        time_budget: str | None = None,
        non_finite: Policy = "stop",
        log_every_n_steps: int = 10,
        precision: PrecisionName | None = None,
        tune_allocator: bool = False,
        compile: Literal["blocks"] | None = None,
        compile_backend: str = "inductor",
        activation_checkpointing: Literal["selective", "full"] | None = None,
        accumulate_grad_batches: int | None = None,
        val_check_interval: int | float | None = None,
        callbacks: list[Callback] | Callback | None = None,
        logger: Logger | list[Logger] | bool | None = None,
        enable_progress_bar: bool = True,
        enable_model_summary: bool = False,
        default_root_dir: str | None = None,
        plugins: Any = None,
        **kwargs: Any,
    ) -> None:
        horizon = {"max_steps": max_steps, "max_tokens": max_tokens, "max_epochs": max_epochs}
        given = [name for name, value in horizon.items() if value is not None]
        if len(given) > 1:
            raise ConfigError(f"trainer.{given[0]} and trainer.{given[1]} both say when to stop: give one")
        for name, value in {**horizon, "log_every_n_steps": log_every_n_steps, "patience": patience}.items():
            if value is not None and value < 1:
                raise ConfigError(f"trainer.{name} must be at least 1, not {value}")
        for name, value in {"validate_every": validate_every, "checkpoint_every": checkpoint_every}.items():
            if value is not None and value < 0:
                raise ConfigError(f"trainer.{name} must be a number of steps, or 0 for never, not {value}")
        if val_check_interval is not None:
            raise ConfigError("trainer.val_check_interval counts batches: use trainer.validate_every (optimizer steps)")
        check_precision(precision)
        check_strategy(kwargs.get("strategy"))
        if tune_allocator and (unable := allocator.tune()):
            print(unable, file=sys.stderr)
        self.run_directory = RunDirectory(Path(default_root_dir or "."))
        self.horizon = horizon
        self.validate_every = validate_every
        self.checkpoint_every = validate_every if checkpoint_every is None else checkpoint_every
        self.monitor, self.monitor_mode = monitor, monitor_mode
        self.asked_accumulation = accumulate_grad_batches
        self.log_every = log_every_n_steps
        self.non_finite: Policy = non_finite

        given_callbacks = [callbacks] if isinstance(callbacks, Callback) else list(callbacks or [])
        if sum(isinstance(callback, EMA) for callback in given_callbacks) > 1:
            raise ConfigError("trainer.callbacks holds EMA twice, with different settings: there can be one average")
        # Order matters within a step: numbers are logged, then saved, then a signal may end the run. Samples are part
        # of a validation, whose time the log leaves out.
        ours: list[Callback] = [RandomState(), Samples(), MetricsLog()]
        if compile is not None:
            ours.append(CompileBlocks(compile_backend))
        if activation_checkpointing is not None:
            ours.append(Recompute(activation_checkpointing))
        if patience is not None:
            ours.append(EarlyStopping(monitor, mode=monitor_mode, patience=patience, check_on_train_epoch_end=False))
        if enable_progress_bar:
            ours.append(Progress())
        self.checkpoints = Checkpoints(keep_last=keep_last, keep_best=keep_best, minutes=checkpoint_every_minutes)
        self.background = Background(async_checkpoints)
        self.agreement = Agreement()
        ours += [
            *given_callbacks,
            Heartbeats(),
            self.checkpoints,
            Signals(None if time_budget is None else parse_duration(time_budget, "trainer.time_budget")),
        ]
        if logger is None or logger is True:
            logger = RunTensorBoard(self.run_directory.path)
        if kwargs.get("profiler") is None:
            kwargs["profiler"] = StepTimes()
        super().__init__(
            max_steps=-1 if max_steps is None else max_steps,
            max_epochs=-1,
            log_every_n_steps=log_every_n_steps,
            accumulate_grad_batches=accumulate_grad_batches or 1,
            val_check_interval=None,
            check_val_every_n_epoch=None,
            callbacks=ours,
            logger=logger,
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=enable_model_summary,
            default_root_dir=str(self.run_directory.path),
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            precision=None if precision == "bf16-master" else precision,
            plugins=plugins_with_ours(plugins, precision),
            **kwargs,
        )
        settle(self.strategy, self.accelerator, precision)

    # Plan -----------------------------------------------------------------------------------------------------

    def plan(self, data: TextDataModule) -> None:
        """Derive accumulation, validation interval and the horizon from the data; called by its ``setup``."""
        if self.asked_accumulation is not None:
            raise ConfigError(
                "trainer.accumulate_grad_batches beside data.global_batch_size: accumulation is derived from "
                "data.global_batch_size and data.micro_batch_size"
            )
        self.accumulate_grad_batches = data.plan(data_ranks(self), data_rank(self))
        steps = self.steps_of(data)
        if self.fast_dev_run:  # type: ignore[attr-defined]
            steps = int(self.fast_dev_run)  # type: ignore[attr-defined]
            self.limit_train_batches = steps * self.accumulate_grad_batches
            self.check_val_every_n_epoch = None
            self.validate_every = steps
        self.fit_loop.epoch_loop.max_steps = steps
        self.val_check_interval = self._batches_between_validations(steps)

    def steps_of(self, data: TextDataModule) -> int:
        """Optimizer steps of the run, by whichever of ``max_steps``, ``max_tokens`` and ``max_epochs`` was given.

        Raises:
            ConfigError: none was; or what was given cannot be counted in steps of ``data``.
        """
        if (tokens := self.horizon["max_tokens"]) is not None:
            return data.steps_for_tokens(tokens, "trainer.max_tokens")
        if (epochs := self.horizon["max_epochs"]) is not None:
            return data.steps_for_epochs(epochs, "trainer.max_epochs")
        if self.horizon["max_steps"] is None:
            raise ConfigError("say when to stop: trainer.max_steps, trainer.max_tokens or trainer.max_epochs")
        return self.horizon["max_steps"]

    def _batches_between_validations(self, steps: int) -> int:
        """Lightning counts micro-batches; without ``validate_every`` there is none within the run."""
        return (self.validate_every or max(steps, 1) + 1) * self.accumulate_grad_batches

    def fit(
        self,
        model: L.LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: L.LightningDataModule | None = None,
        ckpt_path: str | Path | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Train.

        Args:
            model: a task, or any LightningModule.
            train_dataloaders: only for modules and data of your own.
            val_dataloaders: likewise.
            datamodule: one of the data modules of this package, or your own.
            ckpt_path: checkpoint to go on from; ``last`` and ``best`` are looked up among the verified ones.
            weights_only: load plain data only (the default).
        """
        path = self.resolve_checkpoint(ckpt_path)
        if not isinstance(datamodule, TextDataModule):  # whose set-up does this, knowing its batches
            self.val_check_interval = self._batches_between_validations(self.max_steps or 1)
        skip_empty_hooks(self.callbacks)  # type: ignore[attr-defined]
        try:
            super().fit(model, train_dataloaders, val_dataloaders, datamodule, path, weights_only)
        except RuntimeError as error:
            if (stalled := heartbeat.explain(self, error)) is not None:
                for process in getattr(self.strategy.launcher, "procs", []):  # one that hangs hears nothing else
                    process.kill()
                raise stalled from None
            self.background.finish()
            raise
        except BaseException:
            self.background.finish()
            raise
        self.background.wait()

    def resolve_checkpoint(self, ckpt_path: str | Path | None) -> str | Path | None:
        """Turn ``last``, ``best`` or a step into the path of a checkpoint whose checksum holds."""
        if ckpt_path is None or Path(ckpt_path).exists():
            return ckpt_path
        directory = self.run_directory.checkpoints
        choice = choose(directory, str(ckpt_path), print, monitor=(self.monitor, self.monitor_mode))
        if choice is None:
            raise ConfigError(f"ckpt_path '{ckpt_path}': {directory} has no checkpoint yet")
        return choice.to_resume(str(ckpt_path))

    # Checkpoints ----------------------------------------------------------------------------------------------

    def save_checkpoint(self, filepath: Any, weights_only: bool | None = None, storage_options: Any = None) -> None:
        """The one door through which every checkpoint is written: partial name, flush, rename, manifest last."""
        if (guard := getattr(self.lightning_module, "guard", None)) is not None:
            guard.check()
        final = Path(self.strategy.broadcast(filepath))
        final.parent.mkdir(parents=True, exist_ok=True)
        partial = manifest.partial_path(final)
        self.background.wait()
        if self.background.threaded:
            with self.profiler.profile("save_checkpoint"):  # type: ignore[attr-defined]  # the copy takes training's time
                checkpoint = snapshot(self._checkpoint_connector.dump_checkpoint(weights_only))
            self.background.submit(lambda: self.strategy.save_checkpoint(checkpoint, partial, storage_options))
        else:
            super().save_checkpoint(partial, weights_only, storage_options)
        if self.is_global_zero:
            facts = self.manifest()
            self.background.submit(lambda: manifest.publish(partial, final, facts))
        self.strategy.barrier("save_checkpoint")

    def manifest(self) -> dict[str, Any]:
        """What is recorded beside a checkpoint: where it stands and what it was made with."""
        data: Any = getattr(self, "datamodule", None)
        return {
            "step": self.global_step,
            "tokens": self.tokens,
            "metrics": self.checkpoints.metrics,
            "monitor": {"name": self.monitor, "mode": self.monitor_mode},
            "ema": next((callback.settings for callback in self.callbacks if isinstance(callback, EMA)), None),  # type: ignore[attr-defined]
            "data_ranks": data_ranks(self),
            "world_size": self.world_size,
            "threads": torch.get_num_threads(),
            "versions": {
                "lightning_nlp": lightning_nlp.__version__,
                "torch": torch.__version__,
                "lightning": L.__version__,
                "python": platform.python_version(),
            },
            "tokenizer": data.tokenizer.hash if isinstance(data, TextDataModule) and data.tokenizer else None,
            "order": data.order_fingerprint if isinstance(data, TextDataModule) else None,
        }

    @property
    def tokens(self) -> int:
        """Non-pad tokens trained on, over all data ranks, since the beginning of the run."""
        (log,) = (callback for callback in self.callbacks if isinstance(callback, MetricsLog))  # type: ignore[attr-defined]
        return log.tokens


def plugins_with_ours(plugins: Any, precision: PrecisionName | None) -> list[Any]:
    """Add the plain CheckpointIO, and the precision Lightning does not know, to the plugins the user gave."""
    given = list(plugins) if isinstance(plugins, list) else [] if plugins is None else [plugins]
    if SLURMEnvironment.detect() and not any(isinstance(plugin, ClusterEnvironment) for plugin in given):
        given.append(SLURMEnvironment(auto_requeue=False))  # the job script does that, by the exit code
    return [*given, PlainCheckpointIO(), *([BFloat16Master()] if precision == "bf16-master" else [])]
