"""Worker processes that read and tokenise ahead, each for some of a rank's lanes; what comes out does not change.

A worker is what a further rank would be: it draws its lanes' rows of step after step, and sends them with the state of
its lanes. So the state of the data is that of the last step used, however far ahead the workers are.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from lightning_nlp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning_nlp.data.order.lanes import Row

AHEAD = 2
"""Steps a worker may be ahead."""
PATIENCE = 1.0
"""Seconds between looks at whether the other side is still alive."""
KINDS = {"ConfigError": ConfigError, "DataError": DataError}


class Steps(Protocol):
    """A stream of which a worker has some lanes."""

    def restore(self, state: dict[str, Any]) -> None:
        """Stand where ``state`` says."""

    def advance(self) -> tuple[list[Row], dict[str, dict[str, Any]]]:
        """Rows of the present step, and where the lanes stand after it."""

    def remember(self, states: dict[str, dict[str, Any]]) -> None:
        """Go over to the next step."""


class Workers:
    """Processes that share a rank's lanes.

    Args:
        make: makes the stream of a worker, by number, in the worker.
        count: workers.
        state: of the lanes, to start from.
    """

    def __init__(self, make: Callable[[int], Steps], count: int, state: dict[str, Any]) -> None:
        context = multiprocessing.get_context("fork")  # what a worker needs is large and need not be copied
        self._queues = [context.Queue(AHEAD) for _ in range(count)]
        self._processes = [
            context.Process(target=work, args=(make, number, state, channel, os.getpid()), daemon=True)
            for number, channel in enumerate(self._queues)
        ]
        for process in self._processes:
            process.start()
        self._finalizer = weakref.finalize(self, end, self._processes)

    def next(self) -> tuple[list[Row], dict[str, dict[str, Any]]]:
        """The next step's rows, in the order of their numbers, and the state of all lanes after it.

        Raises:
            DataError, ConfigError: what a worker met.
            RuntimeError: a worker broke, or died.
        """
        rows: list[Row] = []
        states: dict[str, dict[str, Any]] = {}
        for process, channel in zip(self._processes, self._queues, strict=True):
            kind, *content = self._receive(process, channel)
            if kind != "step":
                self.close()
                raise KINDS.get(kind, RuntimeError)(content[0])
            rows += content[0]
            states |= content[1]
        return sorted(rows, key=lambda row: row.number), states

    def _receive(self, process: Any, channel: Any) -> Any:
        while True:
            try:
                return channel.get(timeout=PATIENCE)
            except queue.Empty:
                if not process.is_alive() and channel.empty():
                    code = process.exitcode
                    self.close()
                    raise RuntimeError(f"a data worker died (exit code {code})") from None

    def close(self) -> None:
        """End the processes."""
        self._finalizer()


def end(processes: list[Any]) -> None:
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def work(make: Callable[[int], Steps], number: int, state: dict[str, Any], channel: Any, parent: int) -> None:
    """A worker's life: steps one after the other, until its parent ends it, or is gone."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)  # the parent decides what they mean
    try:
        for item in steps(make(number), state):
            send(channel, ("step", *item), parent)
    except (ConfigError, DataError) as mistake:
        send(channel, (type(mistake).__name__, str(mistake)), parent)
    except Exception:  # whatever broke is told to the parent, which can be seen
        send(channel, ("broken", f"a data worker broke:\n{traceback.format_exc()}"), parent)


def steps(stream: Steps, state: dict[str, Any]) -> Iterator[tuple[list[Row], dict[str, dict[str, Any]]]]:
    stream.restore(state)
    while True:
        rows, states = stream.advance()
        stream.remember(states)
        yield rows, states


def send(channel: Any, item: Any, parent: int) -> None:
    """Put, unless the parent is gone: then there is nobody to work for."""
    while True:
        with contextlib.suppress(queue.Full):
            channel.put(item, timeout=PATIENCE)
            return
        if os.getppid() != parent:
            os._exit(0)
