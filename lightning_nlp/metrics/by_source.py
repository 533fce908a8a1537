"""Sums over evaluated batches, of all of them and of each source of a mixture by itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric


class SumsBySource(Metric):
    """Metrics that follow from a few sums. Ranks add them, whichever sources a rank has seen.

    Args:
        sources: names of the sources of a mixture; none: there is only the whole.
    """

    full_state_update = False
    names: ClassVar[tuple[str, ...]] = ()
    """Of the sums; each is a state ``[1 + sources]``, in float64, of which the first number is the whole."""

    def __init__(self, sources: Iterable[str] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sources = list(sources)
        for name in self.names:
            self.add_state(name, default=torch.zeros(1 + len(self.sources), dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, source: str | None, **values: Tensor) -> None:
        """Add a batch, all of whose examples are of ``source`` where that is known."""
        places = [0, 1 + self.sources.index(source)] if source in self.sources else [0]
        for name, value in values.items():
            getattr(self, name)[places] += value.double()

    @abstractmethod
    def measured(self, sums: dict[str, float]) -> dict[str, float]:
        """Metrics of one set of sums."""

    def compute(self) -> dict[str, float]:
        """Metrics of the whole, and under ``SOURCE/NAME`` those of every source that was seen."""
        columns = {name: getattr(self, name).tolist() for name in self.names}
        found = self.measured({name: values[0] for name, values in columns.items()})
        for place, source in enumerate(self.sources, 1):
            sums = {name: values[place] for name, values in columns.items()}
            if any(sums.values()):
                found |= {f"{source}/{name}": value for name, value in self.measured(sums).items()}
        return found
