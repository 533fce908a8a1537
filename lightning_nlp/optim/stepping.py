"""What the steps of all optimizers written here have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch


class Stepping(torch.optim.Optimizer, ABC):
    """An optimizer that says only how weights move, in :meth:`update`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update; returns what ``closure``, which computes gradients, does."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.update()
        return loss

    @abstractmethod
    def update(self) -> None:
        """Move every parameter that has a gradient."""
