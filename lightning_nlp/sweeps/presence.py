"""Who works on a sweep: a locked file for every worker, which the kernel unlocks when the worker dies in any way."""

from __future__ import annotations

import fcntl
import os
import secrets
import signal
import socket
import time
from pathlib import Path

MARK = "LIGHTNING_NLP_TRIAL"
"""Environment variable of a trial and all its processes: its directory. By it, leftovers are found."""


class Presence:
    """This worker, for as long as the process lives.

    Attributes:
        name: ``host:pid:token``.
    """

    def __init__(self, directory: Path) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._path = lock_path(directory, self.name)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self._path.open("w")
        fcntl.flock(self._stream, fcntl.LOCK_EX)

    def leave(self) -> None:
        """Nothing of it is left behind."""
        self._path.unlink(missing_ok=True)
        self._stream.close()


def lock_path(directory: Path, name: str) -> Path:
    return directory / "workers" / f"{name.replace(':', '.')}.lock"


def is_dead(directory: Path, name: str) -> bool | None:
    """Whether a worker is dead; None where this machine cannot know: it is another's, or it works elsewhere."""
    if not name:
        return True  # it let go
    if name.partition(":")[0] != socket.gethostname():
        return None
    path = lock_path(directory, name)
    if not path.exists():
        pid = int(name.split(":")[1])
        return None if Path(f"/proc/{pid}").exists() else True
    if is_locked(path):
        return False
    path.unlink(missing_ok=True)
    return True


def is_locked(path: Path) -> bool:
    """Whether the worker that made a lock file is alive."""
    try:
        with path.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def processes_of(trials: Path) -> list[int]:
    """Processes on this machine that belong to a trial, or to any below a directory (Linux; elsewhere none)."""
    marks, found = [f"\0{MARK}={trials.absolute()}{end}".encode() for end in ("\0", "/")], []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            own = b"\0" + (entry / "environ").read_bytes() + b"\0"
            if any(mark in own for mark in marks) and "\nState:\tZ" not in (entry / "status").read_text():
                found.append(int(entry.name))
        except OSError:  # it ended, or it is somebody else's
            continue
    return [pid for pid in found if pid != os.getpid()]


def end_leftovers(trials: Path, grace: float) -> int:
    """End what still runs of trials whose worker died: SIGTERM, so that they save, after ``grace`` seconds SIGKILL.

    Args:
        trials: directory of a trial, or of all trials of a sweep.
        grace: seconds.

    Returns:
        How many processes there were.
    """
    found = processes_of(trials)
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + wait
        for pid in processes_of(trials):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        while processes_of(trials) and time.monotonic() < until:
            time.sleep(0.05)
    return len(found)
