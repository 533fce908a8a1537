"""What happens when a loss or a gradient is not a finite number.

One not finite number in a gradient makes the norm of all of them not finite, on every process alike: gradients have
been summed over the processes by then. So the norm, which is known anyway, is all that has to be looked at.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_nlp.errors import TrainingError

Policy = Literal["stop", "skip"]
IN_A_ROW = 10
"""Skipped steps after which something else is wrong than a batch."""
MOST_UNREAD = 1000
"""Norms that are kept at most until somebody looks."""


class Guard:
    """Watches gradient norms.

    ``stop`` looks only where the log or a checkpoint looks anyway, so that no step waits for the device; what came in
    between is never saved. ``skip`` looks at every step and leaves out those whose gradients cannot be used.

    Args:
        policy: what to do.
    """

    def __init__(self, policy: Policy = "stop") -> None:
        self.policy = policy
        self.skipped = 0
        """Steps left out since training started."""
        self._in_a_row = 0
        self._unread: list[tuple[int, Tensor]] = []

    def look(self, norm: Tensor, step: int) -> bool:
        """Take note of the ``norm`` of a step; True: do not use its gradients.

        Raises:
            TrainingError: too many steps in a row were skipped; or as ``check``.
        """
        if self.policy == "stop":
            self._unread.append((step, norm))
            if len(self._unread) == MOST_UNREAD:
                self.check()
            return False
        if bool(norm.isfinite()):
            self._in_a_row = 0
            return False
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise TrainingError(
                f"the gradients of {IN_A_ROW} steps in a row, up to step {step}, are not finite: lower the learning "
                "rate, clip gradients, or look at the data of these steps"
            )
        return True

    def check(self) -> None:
        """Raises:
        TrainingError: under ``stop``, the gradients of a step before were not finite; names the first.
        """
        unread, self._unread = self._unread, []
        if not unread or (finite := torch.stack([norm for _, norm in unread]).isfinite()).all():
            return
        first = unread[finite.tolist().index(False)][0]
        raise TrainingError(
            f"the gradients of step {first} are not finite, and nothing was saved since: go on from the last "
            "checkpoint with a lower learning rate, or with --trainer.non_finite skip"
        )
