"""Time that ranks wait for each other's gradients: what DDP itself measures, read now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from lightning_nlp.trainer import Trainer


class Communication:
    """Reads DDP's own clock of one step in every log interval; other strategies have none to read.

    DDP sends gradients while others are still being made. What counts is the part in which nothing was computed: the
    time of sending less its overlap with the backward pass.
    """

    def __init__(self, trainer: Trainer) -> None:
        model = getattr(trainer.strategy, "model", None)
        self._model: Any = model if isinstance(model, DistributedDataParallel) else None
        self._iteration = -1
        if self._model is not None:  # counted in micro-batches, of which every k-th sends
            self._model._set_ddp_runtime_logging_sample_rate(trainer.log_every * trainer.accumulate_grad_batches)

    @property
    def known(self) -> bool:
        """There is a clock to read."""
        return self._model is not None

    def read(self) -> float | None:
        """Seconds of the last step that was measured; None when none was since the last call."""
        if self._model is None:
            return None
        found = self._model._get_ddp_logging_data()
        iteration, sent = found.get("iteration", 0), found.get("backward_comm_time", 0)
        if iteration == self._iteration or not sent:
            return None
        self._iteration = iteration
        return max(sent - found.get("backward_compute_comm_overlap_time", 0), 0) / 1e9
