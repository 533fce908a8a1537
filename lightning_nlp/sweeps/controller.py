"""A worker: takes configurations from the study, runs their trials in its slots, writes down what became of them."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from lightning_nlp.errors import DataError
from lightning_nlp.run import exit_codes
from lightning_nlp.sweeps.active import Active, Run
from lightning_nlp.sweeps.directory import Opened
from lightning_nlp.sweeps.launcher import Launcher
from lightning_nlp.sweeps.presence import Presence
from lightning_nlp.sweeps.storage import LOST, WAITS
from lightning_nlp.sweeps.study import Cell, Study

POLL, IDLE = 0.1, 1.0
"""Seconds between two looks at the trials, and between two at the study when it has nothing for us."""
FRUITLESS = 3
"""So many failed configurations, and no other: something is wrong with all of them."""


class Worker:
    """Runs trials until nothing is left.

    Args:
        opened: the sweep.
        study: shared with other workers.
        launcher: starts trials.
        presence: this worker.
        say: takes a line for people.
        show: is called with the trials at work, now and then.
    """

    def __init__(
        self,
        opened: Opened,
        study: Study,
        launcher: Launcher,
        presence: Presence,
        say: Callable[[str], None],
        show: Callable[[list[Run]], None] = lambda runs: None,
    ) -> None:
        self._opened, self._study, self._launcher = opened, study, launcher
        self._presence, self._say, self._show = presence, say, show
        self._active: list[Active] = []
        self._stopped_by: int | None = None
        self._stops = 0
        self._asked_at = self._beaten_at = float("-inf")
        self._lost_at: float | None = None
        """Since when the study does not answer."""
        self._more = True
        """Whether anything waits or runs, here or with another worker, who may die."""
        self._hopeless = ""

    def work(self) -> int:
        """Returns an exit code: 0, 1 when every configuration fails alike, 130 or 143 when stopped by a signal."""
        with self._signals(), self._study.reachable():
            while True:
                self._live()
                if not self._leaving:
                    self._fill()
                if self._leaving:  # also for what was claimed, or started, while the signal came
                    self._stop_all()
                for active in list(self._active):
                    self._follow(active)
                self._show([run for active in self._active for run in active.runs])
                if not self._active and (self._leaving or not self._more):
                    break
                time.sleep(POLL)
        if self._stopped_by is not None:
            return exit_codes.BY_SIGNAL[signal.Signals(self._stopped_by)]
        if self._hopeless:
            raise DataError(self._hopeless)
        return exit_codes.DONE

    # Signals ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            self._end_all()  # on an error of our own; else there are none
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        self._stopped_by, self._stops = number, self._stops + 1
        self._stop_all()  # at once: the loop may be waiting for the database
        if self._stops == 1:
            print("lightning-nlp: stopping: trials save and leave (again: at once)", file=sys.stderr, flush=True)

    @property
    def _leaving(self) -> bool:
        """Whether nothing is to be started any more, though there is work left."""
        return self._stopped_by is not None or bool(self._hopeless)

    def _stop_all(self) -> None:
        for active in list(self._active):
            active.stop(at_once=self._stops > 1)

    def _end_all(self) -> None:
        """Have what still runs save and leave, without a word to anybody; after its time to do so it is killed."""
        left = [run for run in self._runs() if run.process is not None]
        while left:
            self._stop_all()
            left = [run for run in left if run.look() is None]
            time.sleep(POLL if left else 0.0)

    # One round --------------------------------------------------------------------------------------------------

    def _live(self) -> None:
        """Show that we live; whoever took a configuration from us (we were silent for long) shall have it."""
        beat = self._opened.sweep.launcher.heartbeat
        if time.monotonic() - self._beaten_at < beat / 3:
            return
        self._beaten_at = time.monotonic()
        mine = self._study.claims.beat(self._presence.name)
        for active in [each for each in self._active if each.claim.key not in mine]:
            self._say(f"configuration {active.claim.number} was taken over by another worker")
            active.stop(at_once=True)
            self._active.remove(active)

    def _fill(self) -> None:
        """Start what waits, as far as there are slots."""
        free = sorted(set(range(self._launcher.slots)) - {run.slot for run in self._runs() if run.slot is not None})
        for slot in free:
            run = next((run for run in self._runs() if run.waits), None)
            if run is None and time.monotonic() - self._asked_at > IDLE:
                run = self._claimed()
            if run is None or self._leaving:
                return
            run.start(self._launcher, slot, self._presence.name)

    def _claimed(self) -> Run | None:
        """The first trial of a configuration that is new here, if there is one."""
        while not self._leaving:
            try:
                held = {active.claim.key for active in self._active}
                claim = self._study.next(self._presence.name, held, 3 * self._opened.sweep.launcher.heartbeat)
                if claim is None:
                    self._more = self._study.open_ends()
                self._lost_at = None
            except LOST:  # trials go on meanwhile
                claim, self._lost_at = None, self._lost_at or time.monotonic()
                if time.monotonic() - self._lost_at > sum(WAITS):
                    raise
            if claim is None:
                self._asked_at = time.monotonic()
                return None
            active = Active(self._opened, self._study, claim, self._say)
            self._active.append(active)
            waiting = next((run for run in active.runs if run.waits), None)
            if waiting is not None:
                return waiting
            self._follow(active)  # everything was done; only the study did not know
        return None

    def _follow(self, active: Active) -> None:
        state = active.follow()
        if state is None:
            return
        self._active.remove(active)
        self._asked_at = float("-inf")
        if state == "stopped":
            self._study.claims.release(active.claim.key, self._presence.name)
            return
        self._study.finish(active.claim, state, active.value(), self._presence.name)
        if state == "failed":
            self._hopeless = self._hopeless or hopeless(self._study.cells())

    def _runs(self) -> list[Run]:
        return [run for active in self._active for run in active.runs]


def hopeless(cells: list[Cell]) -> str:
    """Why it makes no sense to go on, or nothing."""
    ended = [cell for cell in cells if cell.state in ("done", "pruned", "failed")]
    failed = [cell for cell in ended if cell.state == "failed"]
    if not failed or len(failed) < len(ended):
        return ""
    records = [record for cell in failed for record in cell.trials.values() if record["state"] == "failed"]
    if not records:
        return ""
    always = next((record for record in records if record["kind"] == "no_metric"), None)
    if always is None and len(failed) < FRUITLESS:
        return ""
    last = always or records[-1]
    count = "the first configuration" if len(failed) == 1 else f"all of the first {len(failed)} configurations"
    return f"{count} failed, the sweep stops: {last['reason']}"
