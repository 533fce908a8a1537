"""Work that training need not wait for: writing a checkpoint while the next steps are computed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from torch import Tensor


class Background:
    """Does what it is given one after the other, in a thread of its own, or at once.

    Args:
        threaded: use a thread.
    """

    def __init__(self, threaded: bool) -> None:
        self.threaded = threaded
        self._pool = ThreadPoolExecutor(1, "checkpoints") if threaded else None
        self._pending: list[Future[Any]] = []

    def submit(self, work: Callable[[], Any]) -> None:
        """Do ``work`` when what came before is done."""
        if self._pool is None:
            work()
        else:
            self._pending.append(self._pool.submit(work))

    def wait(self) -> None:
        """Until everything is done; an error of the thread is raised here."""
        pending, self._pending = self._pending, []
        for future in pending:
            future.result()

    def finish(self) -> None:
        """Until everything is done, of a run that has failed already: a second error is no news."""
        wait(self._pending)
        self._pending = []


def snapshot(value: Any, seen: dict[Any, Tensor] | None = None) -> Any:
    """A copy, in main memory, of all tensors in nested dictionaries and lists: training may go on changing the others.

    Args:
        seen: tensors copied so far; names that share one share its copy.
    """
    seen = {} if seen is None else seen
    if isinstance(value, Tensor):
        key = (
            id(value) if hasattr(value, "placements") else (value.data_ptr(), value.shape, value.stride(), value.dtype)
        )
        if key not in seen or not value.numel():
            seen[key] = value.detach().to("cpu", copy=True)
        return seen[key]
    if isinstance(value, dict):
        return {name: snapshot(item, seen) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(snapshot(item, seen) for item in value)
    return value
