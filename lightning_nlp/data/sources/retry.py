"""Trying again when reading fails: networks and their file systems come back."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from lightning_nlp.errors import ConfigError, DataError

T = TypeVar("T")
LONGEST_WAIT = 30.0
CHECKPOINT_ROWS = 256
"""Rows after which a cursor's mark is held; at a failure at most so many are read again."""
LASTING = (ConfigError, DataError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""Errors that waiting does not mend, whatever lies behind them."""
NETWORK = ("httpx", "httpcore", "aiohttp", "requests")
"""Libraries below the ``datasets`` library, some of whose errors are no ``OSError``."""


class Cursor(Protocol):
    """Rows one after the other. ``mark()`` says where the next one begins, in plain values."""

    def __next__(self) -> Any:
        """The next row."""

    def mark(self) -> Any:
        """Where it begins."""


def transient(error: BaseException) -> bool:
    """Whether it may go away by itself: errors of files and networks, also those that libraries wrap or derive."""
    seen: list[BaseException] = []
    while error not in seen:
        if isinstance(error, LASTING):
            return False
        if isinstance(error, (OSError, TimeoutError, EOFError)) or type(error).__module__.split(".")[0] in NETWORK:
            return True
        seen.append(error)
        error = error.__cause__ or error
    return False


class Attempts:
    """Counts failures in a row, and waits longer after each.

    Args:
        retries: failures after which to give up.
        sleep: waits for seconds.
    """

    def __init__(self, retries: int, sleep: Callable[[float], None] = time.sleep) -> None:
        self.retries, self._sleep, self.failures = retries, sleep, 0

    def after(self, error: Exception) -> None:
        """Wait, or raise ``error`` when it will not go away or has come too often."""
        if not transient(error) or self.failures >= self.retries:
            raise error
        wait = min(2.0**self.failures, LONGEST_WAIT)
        self.failures += 1
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        times = f"{self.failures} of {self.retries}"
        print(f"reading failed ({reason}): trying again in {wait:g} s ({times})", file=sys.stderr)
        self._sleep(wait)

    def call(self, function: Callable[[], T]) -> T:
        """The value of ``function``, called until it succeeds."""
        while True:
            try:
                found = function()
            except Exception as error:  # sorted out by its kind
                self.after(error)
            else:
                self.failures = 0
                return found


class PersistentCursor:
    """A cursor that is opened again where it stood when reading fails; no row is lost or repeated.

    Args:
        open: a cursor at a mark; at the beginning for None.
        mark: where to begin.
        retries: failures in a row after which to give up.
    """

    def __init__(self, open: Callable[[Any], Cursor], mark: Any, retries: int) -> None:
        self._open, self._attempts = open, Attempts(retries)
        self._held, self._passed = mark, 0
        self._cursor: Cursor | None = None

    def __next__(self) -> Any:
        while True:
            try:
                cursor = self._cursor or self._standing()
                if self._passed >= CHECKPOINT_ROWS:
                    self._held, self._passed = cursor.mark(), 0
                found = next(cursor)
            except StopIteration:
                raise
            except Exception as error:  # sorted out by its kind
                self._cursor = None
                self._attempts.after(error)
            else:
                self._passed += 1
                self._attempts.failures = 0
                return found

    def _standing(self) -> Cursor:
        if self._cursor is None:
            cursor = self._open(self._held)
            for _ in range(self._passed):
                next(cursor)
            self._cursor = cursor
        return self._cursor

    def mark(self) -> Any:
        """Where the next row begins."""
        if self._passed:
            self._held, self._passed = self._attempts.call(lambda: self._standing().mark()), 0
        return self._held
