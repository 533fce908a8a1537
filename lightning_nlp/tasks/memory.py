"""A task's recurrent memory (Transformer-XL): one for training, which checkpoints hold, and one for evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lightning_nlp.backbone.recurrence import Recurrence
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.ranks import data_rank, data_ranks

if TYPE_CHECKING:
    from lightning_nlp.tasks.base import TaskModule

KEY = "recurrence"
"""Of the states in a checkpoint."""


class Memory:
    """Hands the states of the rows before to a batch's forward pass, and keeps what it leaves; idle without memory.

    Args:
        task: whose configuration says how many states there are.
    """

    def __init__(self, task: TaskModule) -> None:
        self._config = lambda: task.config
        self._backbone = lambda: task.backbone
        self._stages: dict[str, Recurrence] = {}
        self._restored: dict[str, Any] = {}
        self._ranks = 1

    @property
    def used(self) -> bool:
        """The model carries states at all."""
        return self._config().memory_length > 0

    def begin(self, trainer: Any, data: Any) -> None:
        """Training starts: take back the states of this rank's lanes.

        Raises:
            ConfigError: the data does not come in lanes of continuing text.
        """
        if not self.used:
            return
        if not getattr(data, "packed", False):
            raise ConfigError("backbone.memory_length needs packed data: no example continues another")
        if data.global_batch_size > data.lanes:
            raise ConfigError(
                f"backbone.memory_length needs data.lanes {data.lanes} to be at least the global batch "
                f"{data.global_batch_size}: two rows of a lane in one step could not follow each other"
            )
        self._ranks, rank = data_ranks(trainer), data_rank(trainer)
        own = {lane: kept for lane, kept in self._restored.items() if int(lane) % self._ranks == rank}
        self._restored = {}
        self.forget("train")
        self._stages["train"].load_state_dict(own)

    def forget(self, stage: str) -> None:
        """Start anew."""
        backbone = self._backbone()
        if self.used and backbone is not None:
            self._stages[stage] = backbone.new_recurrence()

    @contextmanager
    def carried(self, stage: str, batch: dict[str, Any]) -> Iterator[None]:
        """While the batch is computed it holds ``carried``, which heads hand to the backbone."""
        if not self.used or "lanes" not in batch:
            yield
            return
        recurrence, segments = self._stages[stage], batch["segments"]
        recurrence.to(segments.device)
        backbone = self._backbone()
        assert backbone is not None
        dtype = backbone.embedding_weight.dtype
        batch["carried"] = recurrence.enter(batch["lanes"], batch["continues"], segments, dtype)
        yield
        recurrence.leave(batch["lanes"], batch.pop("carried"), segments)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the states of all ranks' lanes into a checkpoint."""
        if "train" not in self._stages:
            return
        states = self._stages["train"].state_dict()
        if self._ranks > 1:
            shares: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(shares, states)
            states = {lane: kept for share in shares for lane, kept in share.items()}
        checkpoint[KEY] = dict(sorted(states.items(), key=lambda entry: int(entry[0])))

    def load(self, checkpoint: dict[str, Any]) -> None:
        """Remember a checkpoint's states until training starts."""
        self._restored = checkpoint.get(KEY, {})
