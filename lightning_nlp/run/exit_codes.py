"""One table of exit codes for `fit`, sweeps and job schedulers."""

from __future__ import annotations

import signal

DONE = 0
FAILED = 1
CONFIGURATION = 2
REQUEUE = 85
"""Saved; start me again with `--run` (time budget used up, or SIGUSR1)."""
STALLED = 86
INTERRUPTED = 130
TERMINATED = 143

BY_SIGNAL = {signal.SIGTERM: TERMINATED, signal.SIGINT: INTERRUPTED, signal.SIGUSR1: REQUEUE}
STATES = {DONE: "done", FAILED: "failed", CONFIGURATION: "failed", REQUEUE: "requeue", STALLED: "stalled"}
STATES |= {INTERRUPTED: "interrupted", TERMINATED: "terminated"}
OUT_OF_MEMORY = (
    "OutOfMemoryError",
    "out of memory",
    "not enough memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "bad_alloc",
)
"""By one of these in its last words, a process that failed is known to have wanted for memory."""


class GracefulExit(Exception):
    """Raised on every rank alike after a checkpoint was saved, to leave the training loop with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
