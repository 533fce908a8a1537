"""Processes that share what their parent holds open, and do not outlive it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from lightning_nlp.errors import DataError

Work = Callable[..., dict[str, Any]]
Submit = Callable[..., "Future[dict[str, Any]]"]

_WORK: Work | None = None


def _run(*item: Any) -> dict[str, Any]:
    assert _WORK is not None
    return _WORK(*item)


def _start(parent: int) -> None:
    """Leave interrupts to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def pool(work: Work, workers: int) -> Iterator[Submit]:
    """``submit(*item)`` runs ``work(*item)`` in one of some processes, or in this one when it is a single worker.

    Processes are forked: sources hold memory maps and open files, which they inherit as they are.

    Raises:
        DataError: a process was killed.
    """
    global _WORK
    if workers == 1:

        def here(*item: Any) -> Future[dict[str, Any]]:
            future: Future[dict[str, Any]] = Future()
            future.set_result(work(*item))
            return future

        yield here
        return
    _WORK = work
    executor = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("fork"), initializer=_start, initargs=(os.getpid(),)
    )
    try:
        yield lambda *item: executor.submit(_run, *item)
        executor.shutdown()
    except BrokenProcessPool as error:
        raise DataError("a process that tokenises was killed: is there enough memory?") from error
    finally:
        _WORK = None
        for process in list((executor._processes or {}).values()):
            process.terminate()  # nobody waits for what an interrupted command left them to do
        executor.shutdown(wait=True, cancel_futures=True)
