"""What the commands do: start a sweep, go on with it, help with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lightning_nlp.errors import ConfigError
from lightning_nlp.run import exit_codes
from lightning_nlp.sweeps import space
from lightning_nlp.sweeps.active import Run
from lightning_nlp.sweeps.claims import CONTROLLER, PLANNER, Owner
from lightning_nlp.sweeps.controller import Worker
from lightning_nlp.sweeps.directory import Opened
from lightning_nlp.sweeps.grammar import Sweep
from lightning_nlp.sweeps.launcher import Launcher, LocalLauncher
from lightning_nlp.sweeps.presence import Presence, is_dead
from lightning_nlp.sweeps.records import put_back
from lightning_nlp.sweeps.study import Study

NETWORK = ("nfs", "nfs4", "lustre", "cifs", "smb3", "fuse.sshfs", "beegfs", "gpfs", "ceph")


@dataclass(frozen=True)
class Reporting:
    """Where lines for people go, and who draws the trials at work."""

    say: Callable[[str], None]
    show: Callable[[list[Run]], None] = lambda runs: None


def open_study(opened: Opened) -> Study:
    """The study of a sweep; see :class:`~lightning_nlp.sweeps.study.Study`."""
    url = opened.directory.storage(opened.sweep)
    return Study(opened.sweep, url, opened.identity, opened.base, partial(is_dead, opened.directory.path))


def patience(opened: Opened) -> float:
    """Seconds of silence after which a worker of another machine counts as dead."""
    return 3 * opened.sweep.launcher.heartbeat


def local(sweep: Sweep, parallel: int | None = None) -> LocalLauncher:
    """Processes of this machine.

    Args:
        sweep: has the settings.
        parallel: trials at once, in place of the file's.

    Raises:
        ConfigError: fewer than one at once, or more than there are GPUs for.
    """
    if parallel is not None and parallel < 1:
        raise ConfigError(f"--parallel must be at least 1, not {parallel}")
    return LocalLauncher(sweep.launcher if parallel is None else replace(sweep.launcher, parallel=parallel))


def work(
    opened: Opened, launcher: Launcher, reporting: Reporting, *, controller: bool, retry_failed: bool = False
) -> int:
    """Run trials until none is left.

    Args:
        opened: the sweep.
        launcher: starts them.
        reporting: for people.
        controller: there is one of them at a time; others are workers and may come and go.
        retry_failed: put failed configurations back into the queue first.

    Returns:
        An exit code, see :class:`~lightning_nlp.sweeps.controller.Worker`.

    Raises:
        ConfigError: another controller is at work.
    """
    if warning := on_network(opened):
        reporting.say(warning)
    presence = Presence(opened.directory.path)
    try:
        study = open_study(opened)
        with study.reachable():
            if controller:
                become_controller(opened, study, presence, reporting.say)
            try:
                make_plan(opened, study, presence)
                if retry_failed and (count := put_back(opened, study)):
                    reporting.say(f"{count} failed configurations are tried again")
                code = Worker(opened, study, launcher, presence, reporting.say, reporting.show).work()
            finally:
                if controller:
                    study.claims.release(CONTROLLER, presence.name)
        if code == exit_codes.DONE and not any(cell.state in ("done", "pruned") for cell in study.cells()):
            return exit_codes.FAILED
        return code
    finally:
        presence.leave()


def become_controller(opened: Opened, study: Study, presence: Presence, say: Callable[[str], None]) -> None:
    """Claim the right to plan and to report.

    Raises:
        ConfigError: a controller is alive.
    """
    if study.claims.take(CONTROLLER, presence.name):
        return
    seen: Owner | None = None
    while True:
        owner = study.claims.owners()[CONTROLLER]
        if study.claims.inherit(CONTROLLER, owner, presence.name, patience(opened)):
            return
        host, pid, *_ = owner.worker.split(":") if owner.worker else ("", "")
        if study.claims.is_dead(owner.worker) is False or seen not in (None, owner):
            raise ConfigError(
                f"sweep '{opened.sweep.name}' is being run by process {pid} on {host}: help with "
                f"`lightning-nlp sweep worker {opened.directory.path}`, or look with `sweep status`"
            )
        if seen is None:
            wait = f"waiting up to {patience(opened):.0f} s for a sign of life"
            say(f"{wait} of process {pid} on {host}, which ran this sweep")
        seen = owner
        time.sleep(0.2)


def make_plan(opened: Opened, study: Study, presence: Presence) -> None:
    """Have the configurations of a grid, a list or chance in the study; one worker adds them, the others wait.

    Raises:
        ConfigError: ``run_cap`` is smaller than it was.
    """
    if opened.sweep.method == "bayes":
        return
    settings = space.plan(opened.sweep)
    if study.planned() > len(settings):
        raise ConfigError(
            f"run_cap: {study.planned()} configurations are planned already: {opened.sweep.run_cap} are fewer, and it "
            f"may be raised only: `lightning-nlp sweep resume` the file with the right one"
        )
    while study.planned() < len(settings):
        owner = study.claims.owners().get(PLANNER)
        if owner is None:
            mine = study.claims.take(PLANNER, presence.name)
        else:
            mine = study.claims.inherit(PLANNER, owner, presence.name, patience(opened))
        if mine:
            study.plan(settings)
            study.claims.release(PLANNER, presence.name)
        else:
            time.sleep(0.2)


def on_network(opened: Opened) -> str:
    """A line where SQLite would lie on a network's file system, whose locks cannot be relied on."""
    if opened.sweep.storage is not None and not opened.sweep.storage.startswith("sqlite"):
        return ""
    kind = filesystem(opened.directory.path)
    if kind not in NETWORK:
        return ""
    return f"warning: '{opened.directory.path}' is on {kind}, where SQLite can break: use storage: postgresql://..."


def filesystem(path: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The type of the file system that a path is on; nothing where it is not known."""
    try:
        rows = [line.split()[1:3] for line in mounts.read_text().splitlines()]
    except OSError:
        return ""
    inside = [(place, kind) for place, kind in rows if path.absolute().is_relative_to(place)]
    return max(inside, key=lambda row: len(row[0]), default=("", ""))[1]
