"""One line on the terminal that says how far preparations are; nothing where standard error is no terminal."""

from __future__ import annotations

import sys
import time

PAUSE = 0.1
"""Seconds between two texts, at least."""


class ProgressLine:
    """Rewrites one line of standard error, and takes it away at the end."""

    def __init__(self) -> None:
        self._shown = -PAUSE
        self._open = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *error: object) -> None:
        if self._open:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)

    def show(self, text: str, *, now: bool = False) -> None:
        """Put ``text`` there, but not too often; ``now``: in any case."""
        seconds = time.monotonic()
        if sys.stderr.isatty() and (now or seconds - self._shown >= PAUSE):
            self._shown, self._open = seconds, True
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
