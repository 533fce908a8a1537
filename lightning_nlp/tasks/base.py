"""The one LightningModule shell: a backbone, one or more heads, the loss contract, optimizer and schedule.

Loss contract: heads return sums and counts. A micro-batch back-propagates ``sum / C`` (C a power of two, so no bits
change), and once per optimizer step the gradients are multiplied by ``C * k * ranks / total count``. So k micro-batches
on r ranks give the gradient of one big batch, also when their token counts differ.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.adapters import AdapterConfig, attach
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.init import init_weights, learning_rate_scale
from lightning_nlp.backbone.transformer import Transformer
from lightning_nlp.data.order.ramp import BatchRamp
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.optim import norms
from lightning_nlp.optim.guard import Guard
from lightning_nlp.optim.matrices import block_matrices
from lightning_nlp.optim.muon import Muon
from lightning_nlp.optim.optimizers import OptimizerConfig, apply_hyperparameters, build_optimizer
from lightning_nlp.optim.schedules import ScheduleConfig, factor
from lightning_nlp.run.ranks import data_group, data_ranks
from lightning_nlp.tasks.adapting import choose_trained, trained_summary
from lightning_nlp.tasks.head import Head
from lightning_nlp.tasks.initial import FREE, InitialWeights
from lightning_nlp.tasks.light_module import LightModule
from lightning_nlp.tasks.memory import Memory


class TaskModule(LightModule):
    """Owns the backbone once, and the heads. Tasks are this class with one head, named for the command line.

    Args:
        backbone: architecture; ``vocab_size`` may be left out when data or ``init_from`` decides it.
        heads: ``{name: head}``.
        optimizer: optimizer and its settings.
        schedule: learning rate as a function of the step.
        adapter: small trained parts at layers of the backbone, which is frozen; the heads are trained.
        freeze: patterns of parameters that are not trained.
        trainable: patterns of parameters that are trained although ``adapter`` or ``freeze`` would freeze them.
    """

    def __init__(
        self,
        backbone: TransformerConfig,
        heads: dict[str, Head],
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 - frozen
        schedule: ScheduleConfig = ScheduleConfig(),  # noqa: B008 - frozen
        adapter: AdapterConfig = AdapterConfig(),  # noqa: B008 - frozen
        freeze: list[str] | None = None,
        trainable: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.task_name = type(self).__name__  # sharding changes the class of a module
        # Checkpoints hold plain values, so every part may also come as a dictionary.
        self.config: TransformerConfig = made(TransformerConfig, backbone)
        self.optimizer_config: OptimizerConfig = made(OptimizerConfig, optimizer)
        self.schedule_config: ScheduleConfig = made(ScheduleConfig, schedule)
        self.adapter: AdapterConfig = made(AdapterConfig, adapter)
        self.freeze_patterns, self.trainable_patterns = freeze, trainable
        self.heads = nn.ModuleDict(heads)
        self.backbone: Transformer | None = None
        self.initial: InitialWeights | None = None
        self.on_resolved: Callable[[TransformerConfig], None] | None = None
        self.loss_scale = 1024.0
        self.grad_norm: Tensor | None = None
        self.step_totals: Tensor | None = None
        self.guard = Guard()
        self.memory = Memory(self)
        self._window: list[Tensor] = []
        self._data_ranks = 1
        self._accumulation = 1
        self._rows: BatchRamp | None = None
        self._given_weights = False
        self._sync: Callable[[bool], None] | None = None

    # Building -------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """The only head of a single-task module."""
        (head,) = self.heads.values()
        return head  # type: ignore[return-value]

    def task_hyperparameters(self) -> dict[str, Any]:
        """Constructor arguments beyond those of this class, as plain values."""
        return {}

    def plain_hyperparameters(self) -> dict[str, Any]:
        """Everything ``type(self)(**values)`` needs to build this module again, without data."""
        return {
            "backbone": self.config.to_dict(),
            **self.task_hyperparameters(),
            "optimizer": self.optimizer_config.to_dict(),
            "schedule": self.schedule_config.to_dict(),
            "adapter": self.adapter.to_dict(),
            "freeze": self.freeze_patterns,
            "trainable": self.trainable_patterns,
        }

    def resolve(self, facts: dict[str, Any]) -> None:
        """Settle what data and ``initial`` weights decide, before any parameter exists.

        Raises:
            ConfigError: a given value disagrees; the message names the key and both values.
        """
        if self.initial is not None:
            self.config = self.initial.merge(self.config)
        for key in ("vocab_size", "pad_id", "decoder_start_id"):
            if (value := facts.get(key)) is None:
                continue
            if key == "decoder_start_id" and self.config.arrangement != "encoder_decoder":
                continue  # the head knows what to say about data for another arrangement
            given = getattr(self.config, key)
            if key == "vocab_size" and given is not None and given > value:
                continue  # rows that no token uses, for rounder numbers
            if given is not None and given != value:
                whose = "the data starts targets with" if key == "decoder_start_id" else "the tokenizer has"
                raise ConfigError(f"backbone.{key} is {given}, {whose} {value}")
            self.config = self.config.replace(**{key: value})
        if (length := facts.get("max_length")) and length > self.config.max_length:
            raise ConfigError(f"data.max_length {length} is longer than backbone.max_length {self.config.max_length}")
        shift = self.config.position_shift if self.config.positions == "learned" else 0
        if length and length + shift > self.config.max_length:
            raise ConfigError(
                f"data.max_length {length} and backbone.position_shift {shift} together are more than "
                f"backbone.max_length {self.config.max_length}, the number of learned positions"
            )
        self.choose_heads()
        for head in self.heads.values():
            head.resolve(facts)  # type: ignore[operator]

    def choose_heads(self) -> None:
        """Take other heads where the architecture asks for them; it is settled now."""

    def configure_model(self) -> None:
        """Build backbone and heads; safe to call again, and on the meta device."""
        if self.backbone is not None:
            return
        data = getattr(self._trainer, "datamodule", None) if self._trainer is not None else None
        self.resolve(data.facts() if data is not None and hasattr(data, "facts") else {})
        if self.config.vocab_size is None:
            raise ConfigError("backbone.vocab_size is not set and there is no tokenizer to take it from")
        if self.on_resolved is not None:
            self.on_resolved(self.config)
        strategy: Any = self._trainer.strategy if self._trainer is not None else None
        shards = hasattr(strategy, "shard")
        # What a process will hold a part of need never be whole in it, unless weights are put in that are.
        hollow = shards and self.initial is None and self.adapter.kind == "none"
        with torch.device("meta"):  # also elsewhere: values that are set anew below are not worth drawing
            self.backbone = Transformer(self.config)
        for head in self.heads.values():
            head.build(self.config)  # type: ignore[operator]
            head.tokenizer = getattr(data, "tokenizer", None)  # type: ignore[assignment]
        if hollow:
            choose_trained(self, self.freeze_patterns, self.trainable_patterns)
            strategy.shard(self)
            init_weights(self, self.config, strategy.whole_parameters)
            return
        self.backbone.to_empty(device=torch.get_default_device())
        with torch.no_grad():  # nothing may depend on what memory held
            torch._foreach_zero_(list(self.backbone.parameters()))
        init_weights(self, self.config)
        attach(self.backbone, self.adapter, self.config)
        choose_trained(self, self.freeze_patterns, self.trainable_patterns)
        if self.initial is not None:
            self.initial.load_into(self, self.adapter)
        if shards:
            strategy.shard(self)

    # Training -------------------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Fix the run's constants; put back optimizer values that this command changed over the checkpoint's."""
        self._accumulation = self.trainer.accumulate_grad_batches
        self._data_ranks = data_ranks(self.trainer)
        self.guard = Guard(getattr(self.trainer, "non_finite", "stop"))
        # Those of the optimizers: a validation leaves other tensors in the module where it gathered what is dealt out.
        groups = [group for optimizer in self.trainer.optimizers for group in optimizer.param_groups]
        self._trained = tuple(parameter for group in groups for parameter in group["params"])
        self._sync = getattr(self.trainer.strategy, "sync_gradients", None) if self._accumulation > 1 else None
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.memory.begin(self.trainer, data)
        tokens = getattr(data, "tokens_per_micro_batch", 1024)
        self.loss_scale = 2.0 ** round(math.log2(max(tokens, 1)))
        self._rows = getattr(getattr(data, "batch", None), "rows", None)
        ramp = self.schedule_config.ramp
        if ramp != "none" and (self._rows is None or len(self._rows.stages) == 1):
            raise ConfigError(f"schedule.ramp is {ramp}, but the batch does not grow: give data.batch_ramp")
        for optimizer in self.trainer.optimizers:
            apply_hyperparameters(optimizer, self.optimizer_config)
        if (summary := trained_summary(self)) is not None and self.trainer.is_global_zero:
            print(summary, file=sys.stderr)
            if self.adapter.kind != "none" and not self._given_weights:
                print("note: the adapter's base is new and random; --init_from takes a trained one", file=sys.stderr)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As ``nn.Module``'s; from then on the weights count as given."""
        self._given_weights = True
        return super().load_state_dict(*args, **kwargs)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of one micro-batch, scaled as the loss contract says."""
        if self._sync is not None:  # gradients of all but the last micro-batch can wait
            self._sync(len(self._window) + 1 == self._accumulation)
        with self.memory.carried("train", batch):
            losses = self.heads[batch["task"]](self.backbone, batch)
        _, count = losses["loss"]
        loss_sum = torch.stack([total for total, _ in losses.values()]).sum()
        tokens = (batch["segments"] > 0).sum()
        self._window.append(torch.stack([loss_sum.detach().double(), count.detach().double(), tokens.double()]))
        if self._accumulation * self._data_ranks == 1:  # the normaliser is known at once: nothing to rescale later
            return loss_sum / count.clamp(min=1)
        return loss_sum / self.loss_scale

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """Set this step's learning rate, then step with gradients normalised over the whole global batch."""
        step = self.trainer.global_step
        share = self._rows.size(step) / self._rows.final if self._rows is not None else 1.0
        scale = factor(self.schedule_config, step, self.total_steps, share)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * scale

        def closure() -> Any:
            output = optimizer_closure() if optimizer_closure is not None else None
            self._normalise_gradients()  # before clipping, which follows the closure
            return output

        super().optimizer_step(epoch, batch_idx, optimizer, closure)

    def _normalise_gradients(self) -> None:
        totals = torch.stack(self._window).sum(0)
        self._window.clear()
        if self._data_ranks > 1:
            group = data_group(self.trainer)
            totals = self.trainer.strategy.reduce(totals, group, reduce_op="sum")  # type: ignore[assignment]
        self.step_totals = totals
        if self._accumulation * self._data_ranks > 1:
            scale = self.loss_scale * self._accumulation * self._data_ranks / totals[1].clamp(min=1)
            norms.scale(self._gradients(), scale.float())

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._trained if parameter.grad is not None]

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip as the Trainer asks; the norm before clipping is kept for the log."""
        if gradient_clip_val and gradient_clip_algorithm in (None, "norm"):
            self.grad_norm = norms.clip(self._gradients(), gradient_clip_val)
        else:
            self.grad_norm = norms.total_norm(self._gradients())
        # A loss scale that is too high is found out by its owner, who skips the step.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        if not scaled and self.guard.look(self.grad_norm, self.trainer.global_step + 1):
            self.zero_grad()  # an optimizer leaves alone what has no gradient
        elif not (gradient_clip_val and gradient_clip_algorithm in (None, "norm")):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        scale = partial(learning_rate_scale, config=self.config)
        optimizer = build_optimizer(self, self.optimizer_config, scale, partial(block_matrices, config=self.config))
        strategy = self._trainer.strategy if self._trainer is not None else None  # a plan has none
        if isinstance(optimizer, Muon) and (orders := getattr(strategy, "row_orders", None)) is not None:
            optimizer.orders = orders()
        return optimizer

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run: the horizon of the schedule."""
        steps = self.trainer.max_steps
        if steps is None or steps < 1:
            raise ConfigError("trainer.max_steps is needed: the schedule must know where the run ends")
        return steps

    # Evaluation -----------------------------------------------------------------------------------------------

    def monitors(self) -> list[str]:
        """Names that validation will log, so that a misspelt ``monitor`` is refused before training."""
        if len(self.heads) == 1:
            sources = ["", *(f"{source}/" for source in getattr(self.head, "sources", []))]
            return [f"val/{source}{name}" for source in sources for name in self.head.metric_names]
        return [f"val/{task}/{name}" for task, head in self.heads.items() for name in head.metric_names]  # type: ignore[union-attr]

    def _begin_evaluation(self) -> None:
        self.memory.forget("evaluation")
        for head in self.heads.values():
            head.thorough = self.trainer.state.fn != "fit"  # type: ignore[assignment]

    def _evaluate(self, batch: dict[str, Any]) -> None:
        with self.memory.carried("evaluation", batch):
            self.heads[batch["task"]].update(self.backbone, batch)  # type: ignore[operator]

    def _publish(self, stage: str) -> None:
        for task, head in self.heads.items():
            prefix = stage if len(self.heads) == 1 else f"{stage}/{task}"
            values = head.compute()  # type: ignore[operator]
            # Our own log callback writes these: Lightning's would count micro-batches as steps.
            self.log_dict({f"{prefix}/{name}": value for name, value in values.items()}, logger=False)
            head.reset()  # type: ignore[operator]

    def on_validation_epoch_start(self) -> None:
        self._begin_evaluation()

    def on_test_epoch_start(self) -> None:
        self._begin_evaluation()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        self._publish("val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        self._publish("test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> list[dict[str, Any]]:
        """Records for the examples of one batch, in their order (padding rows give none)."""
        records, failed = list(self.predictions(batch)), batch.get("failed", {})
        for place in sorted(failed):
            records.insert(place, failed[place])
        return records

    def predictions(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        return self.heads[batch["task"]].predict(self.backbone, batch)  # type: ignore[operator]

    # Checkpoints ----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Make the checkpoint able to rebuild its module alone."""
        checkpoint["hyper_parameters"] = self.plain_hyperparameters()
        checkpoint["task"] = self.task_name
        self.memory.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model with one line that names the difference."""
        if self.backbone is None:
            self.configure_model()
        saved = checkpoint.get("hyper_parameters", {}).get("backbone", {})
        ours = self.config.to_dict()
        for key, value in saved.items():
            if key in ours and key not in FREE and ours[key] != value:
                raise CheckpointError(f"the checkpoint has backbone.{key} {value!r}, this configuration {ours[key]!r}")
        self._check_trained(checkpoint.get("hyper_parameters", {}))
        check_state(checkpoint.get("state_dict", {}), self.state_dict())
        self.memory.load(checkpoint)

    def _check_trained(self, saved: dict[str, Any]) -> None:
        """Refuse a checkpoint with other adapters or other frozen parameters: its optimizer state would not fit."""
        theirs = AdapterConfig(**saved.get("adapter", {}))
        found = [
            (f"adapter.{name}", getattr(theirs, name), getattr(self.adapter, name))
            for name in theirs.differences(self.adapter)
        ]
        for name, ours in (("freeze", self.freeze_patterns), ("trainable", self.trainable_patterns)):
            if (saved.get(name) or []) != (ours or []):
                found.append((name, saved.get(name), ours))
        for name, value, ours in found:
            raise CheckpointError(
                f"the checkpoint has model.{name} {value}, this configuration {ours}: "
                "to change it, start a new run with --init_from"
            )


def made(kind: type, value: Any) -> Any:
    """``value`` itself, or built from a dictionary of plain values."""
    return kind(**value) if isinstance(value, dict) else value


def check_state(saved: dict[str, Any], ours: dict[str, Any]) -> None:
    """Compare names and shapes of two state dicts.

    Raises:
        CheckpointError: one line with the first differences.
    """
    problems = [f"{name} is missing" for name in ours if name not in saved]
    problems += [f"{name} is unexpected" for name in saved if name not in ours]
    problems += [
        f"{name} has shape {tuple(saved[name].shape)} instead of {tuple(value.shape)}"
        for name, value in ours.items()
        if name in saved and isinstance(value, Tensor) and saved[name].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"the checkpoint is of another model: {'; '.join(problems[:3])}{more}")
