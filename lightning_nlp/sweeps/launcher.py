"""Starting trials. A launcher has slots; whatever starts processes elsewhere fits the same two protocols."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from lightning_nlp.errors import ConfigError
from lightning_nlp.sweeps.grammar import Launcher as Settings
from lightning_nlp.sweeps.presence import MARK

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Job:
    """One start of a trial: its directory, its command, and where it runs."""

    directory: Path
    command: list[str]
    cwd: Path
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code (negative: a signal's number), wall-clock and processor seconds."""

    code: int
    seconds: float
    cpu_seconds: float
    oom_kills: int = 0


class Process(Protocol):
    """A trial that was started."""

    pid: int

    def poll(self) -> Ended | None:
        """How it ended, or None while it runs."""

    def terminate(self) -> None:
        """Ask it to save and leave (SIGTERM)."""

    def kill(self) -> None:
        """End it and all it started at once."""


class Launcher(Protocol):
    """Starts jobs, ``slots`` of them at a time."""

    slots: int
    gpus: int

    def start(self, job: Job, slot: int) -> Process: ...


class LocalLauncher:
    """Processes of this machine, each in a session of its own.

    Raises:
        ConfigError: there are not enough GPUs for the slots.
    """

    def __init__(self, settings: Settings) -> None:
        self.slots = settings.parallel
        self.gpus = settings.gpus_per_trial or 0
        self._cores = settings.cores
        self._devices: list[list[str]] | None = None
        if settings.gpus_per_trial == 0:
            self._devices = [[] for _ in range(self.slots)]
        elif settings.gpus_per_trial is not None:
            known, each = visible_gpus(), settings.gpus_per_trial
            if len(known) < each * self.slots:
                raise ConfigError(
                    f"launcher: {self.slots} trials at once with {each} GPUs each need {each * self.slots}, "
                    f"this machine has {len(known)}"
                )
            self._devices = [known[slot * each : (slot + 1) * each] for slot in range(self.slots)]

    def environment(self, slot: int) -> dict[str, str]:
        """What a trial in ``slot`` finds besides the environment of the sweep."""
        cores = {} if self._cores is None else {"OMP_NUM_THREADS": str(self._cores)}
        devices = {} if self._devices is None else {"CUDA_VISIBLE_DEVICES": ",".join(self._devices[slot])}
        return {**cores, **devices}

    def start(self, job: Job, slot: int) -> Process:
        # A trial is started by the sweep, not by the scheduler that started the sweep: ranks are its own affair.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        for name in ("LIGHTNING_NLP_RUN", "RANK", "LOCAL_RANK", "WORLD_SIZE"):
            inherited.pop(name, None)
        environment = {**inherited, **self.environment(slot), **job.environment, MARK: str(job.directory.absolute())}
        return LocalProcess(job, environment)


class LocalProcess:
    """A process and what it starts, ended together.

    Raises:
        ConfigError: it cannot be started.
    """

    def __init__(self, job: Job, environment: dict[str, str]) -> None:
        job.directory.mkdir(parents=True, exist_ok=True)
        self._started, self._oom = time.monotonic(), oom_kills()
        try:
            self._process = self._begin(job, environment)
        except OSError as error:
            raise ConfigError(f"program: '{job.command[0]}' cannot be started: {error.strerror}") from error
        self.pid = self._process.pid
        self._ended: Ended | None = None

    @staticmethod
    def _begin(job: Job, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (job.directory / "output.log").open("ab") as log:
            return subprocess.Popen(
                job.command,
                cwd=job.cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the sweep, which then ends its trials in order
                preexec_fn=leave_with(os.getpid()) if sys.platform == "linux" else None,
            )

    def poll(self) -> Ended | None:
        if self._ended is not None or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            return self._ended
        self.kill()  # ranks and workers it left behind; it is not reaped yet, so the number is still its own
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._process.returncode = code
        seconds = time.monotonic() - self._started
        self._ended = Ended(code, seconds, usage.ru_utime + usage.ru_stime, oom_kills() - self._oom)
        return self._ended

    def terminate(self) -> None:
        if self._ended is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        if self._ended is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                return


def leave_with(parent: int) -> Callable[[], None]:
    """Between fork and exec: when the sweep dies, however, the kernel asks the trial to save and leave."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os._exit(143)

    return prepare


def oom_kills() -> int:
    """Processes that the kernel killed for memory in this control group so far; 0 where nobody counts."""
    try:
        with open("/sys/fs/cgroup/memory.events", encoding="ascii") as stream:
            return next((int(line.split()[1]) for line in stream if line.startswith("oom_kill ")), 0)
    except (OSError, ValueError):
        return 0


def visible_gpus() -> list[str]:
    """Names for CUDA_VISIBLE_DEVICES of the GPUs that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is not None:
        return [name.strip() for name in allowed.split(",") if name.strip() not in ("", "-1")]
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    done = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=30)
    return [str(number) for number, line in enumerate(done.stdout.splitlines()) if line.startswith("GPU ")]
