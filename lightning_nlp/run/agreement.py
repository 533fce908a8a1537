"""Small numbers that all processes must agree on between two steps, such as whether to stop."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist


class Agreement:
    """Asked by all processes at the same moment; messages go through main memory, so that none waits for its GPU."""

    def __init__(self) -> None:
        self._group: Any = None
        self._asked = False

    def most(self, trainer: Any, number: int) -> int:
        """The largest ``number`` that any process gave."""
        if trainer.world_size == 1:
            return number
        if not self._asked and dist.get_backend() != "gloo":
            self._group = dist.new_group(backend="gloo")
        self._asked = True
        agreed = torch.tensor(number)
        dist.all_reduce(agreed, dist.ReduceOp.MAX, group=self._group)
        return int(agreed)
