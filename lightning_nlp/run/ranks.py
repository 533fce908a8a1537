"""Which processes see different data."""

from __future__ import annotations

from typing import Any


def data_ranks(trainer: Any) -> int:
    """Ranks that see different data: the strategy's data-parallel size, not the world size."""
    kwargs = getattr(trainer.strategy, "distributed_sampler_kwargs", None)
    return int(kwargs["num_replicas"]) if kwargs else 1


def data_group(trainer: Any) -> Any:
    """The process group of the ranks that see different data; None: all of them."""
    return getattr(trainer.strategy, "data_group", None)


def data_rank(trainer: Any) -> int:
    """This process's place among the data ranks."""
    kwargs = getattr(trainer.strategy, "distributed_sampler_kwargs", None)
    return int(kwargs["rank"]) if kwargs else 0
