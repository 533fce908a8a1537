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


class GracefulExit(Exception):
    """Raised on every rank alike after a checkpoint was saved, to leave the training loop with ``code``."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
