"""A configuration at work: its trials, one for every replicate, and what is decided about all of them together."""

from __future__ import annotations

import math
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from lightning_nlp.run import exit_codes
from lightning_nlp.sweeps import ledger, space
from lightning_nlp.sweeps.directory import Opened
from lightning_nlp.sweeps.launcher import Ended, Job, Launcher, Process
from lightning_nlp.sweeps.ledger import Trial
from lightning_nlp.sweeps.metrics import Curve, Tail
from lightning_nlp.sweeps.outcome import outcome
from lightning_nlp.sweeps.parameters import plain
from lightning_nlp.sweeps.presence import end_leftovers
from lightning_nlp.sweeps.records import trials_of
from lightning_nlp.sweeps.study import Claim, Study

RETRY_PAUSE = 1.0
"""Seconds before a trial is started again, doubled every time: what killed it may need a moment to pass."""


class Run:
    """One trial here: its record, its process while it has one, and its curve."""

    def __init__(self, opened: Opened, trial: Trial, changed: Callable[[Trial], None]) -> None:
        self.trial, self.directory = trial, opened.directory.trial(trial.trial)
        self.slot: int | None = None
        self.process: Process | None = None
        self.asked = ""
        """Why we asked it to leave: pruned, diverged, timeout, stopped; or nothing."""
        self._opened, self._changed = opened, changed
        stopping = opened.sweep.early_terminate
        self.curve = Curve(opened.sweep.metric.name, stopping.resource if stopping else "step")
        self._tail = Tail(self.directory / "metrics.jsonl")
        self._told = False
        """Whether its process was told to leave."""
        self._kill_at = self._not_before = self._began = 0.0
        self._step_before = 0
        if not trial.ended and trial.attempts:
            end_leftovers(self.directory, opened.sweep.launcher.grace)  # of a worker that died
            self._close_last()
        self.read()

    @property
    def waits(self) -> bool:
        """Whether it can be started now."""
        return not self.trial.ended and self.process is None and not self.asked and time.monotonic() >= self._not_before

    @property
    def seconds(self) -> float:
        """Of all attempts, the present one included."""
        return self.trial.seconds + (time.monotonic() - self._began if self.process is not None else 0.0)

    def _close_last(self) -> None:
        """An attempt whose end nobody saw lasted at least until its last line."""
        last, metrics = self.trial.attempts[-1], self.directory / "metrics.jsonl"
        if "seconds" not in last:
            until = metrics.stat().st_mtime if metrics.is_file() else last["started"]
            last |= {"seconds": round(max(until - last["started"], 0.0), 3), "kind": "lost"}

    def read(self) -> None:
        """Take in new lines of metrics.jsonl."""
        for line in self._tail.lines():
            self.curve.add(line)

    def start(self, launcher: Launcher, slot: int, worker: str) -> None:
        """Start it, or go on with it: the same command does both."""
        command = command_of(self._opened, self.trial)
        process = launcher.start(Job(self.directory, command, self._opened.cwd), slot)
        self.process, self.slot, self._began = process, slot, time.monotonic()
        self._step_before = self.curve.step
        attempt = {"worker": worker, "host": socket.gethostname(), "pid": process.pid, "started": round(time.time(), 3)}
        self.trial.attempts.append({**attempt, "from_step": self._step_before})
        self.trial.state, self.trial.gpus = "running", launcher.gpus
        self._changed(self.trial)

    def ask(self, why: str) -> None:
        """Ask it to save and leave, for the first reason given; what is just being started is told the next time."""
        self.asked = self.asked or why
        if self.process is not None and not self._told:
            self._told, self._kill_at = True, time.monotonic() + self._opened.sweep.launcher.grace
            self.process.terminate()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def look(self) -> Ended | None:
        """Look after the process; how it ended, when it just has."""
        self.read()
        if self.process is None:
            return None
        ended = self.process.poll()
        if ended is not None:
            self.read()  # what it wrote between the last look and its end
            return ended
        if self.curve.diverged_at is not None:
            self.ask("diverged")
        timeout = self._opened.sweep.launcher.timeout
        if timeout is not None and self.seconds > timeout:
            self.ask("timeout")
        if self._told and time.monotonic() > self._kill_at:
            self.process.kill()
        return None

    def end(self, ended: Ended) -> None:
        """Write down how it ended."""
        sweep, trial = self._opened.sweep, self.trial
        found = outcome(ended, self.curve, sweep.metric, self.directory)
        trial.attempts[-1] |= {
            "seconds": round(ended.seconds, 3),
            "cpu_seconds": round(ended.cpu_seconds, 3),
            "code": ended.code,
            "kind": self.asked or found.kind,
            "step": self.curve.step,
        }
        self.process = self.slot = None
        trial.code, trial.tokens = ended.code, self.curve.tokens
        if trial.state == "pruned":  # whatever else it was asked: state, value and step are those of the decision
            return self._changed(trial)
        trial.kind, trial.reason, trial.value, trial.step = found.kind, found.reason, found.value, self.curve.step
        bad = self.curve.diverged_at
        if bad is not None:
            trial.state, trial.kind, trial.step, trial.value = "failed", "diverged", bad, None
            trial.reason = f"{sweep.metric.name} became {self.curve.points[bad]}"
        elif found.kind == "done":
            trial.state = "done"
        elif self.asked == "timeout":
            limit = sweep.launcher.timeout or 0
            trial.state, trial.kind, trial.reason = "failed", "timeout", f"longer than {limit:g} s"
        elif (self.asked == "stopped" and found.kind in ("preempted", "killed")) or self._again(found.kind):
            trial.state = "waiting"
        else:
            trial.state = "failed"
        self._changed(trial)

    def prune(self, at: int) -> None:
        """The configuration is stopped early, because of what it had come to ``at`` a step; later ones do not count."""
        self.trial.state = self.trial.kind = "pruned"
        self.trial.reason, self.trial.value = f"stopped early at {self.curve.resource} {at}", self.curve.points[at]
        self.trial.step = self.curve.steps[at]

    def _again(self, kind: str) -> bool:
        """Whether to start it again; a time budget that brought it forward costs no retry."""
        retries = self._opened.sweep.retries
        if kind not in retries.on:
            return False
        spent = [each for each in self.trial.attempts if each.get("kind") in retries.on and not brought_forward(each)]
        if brought_forward(self.trial.attempts[-1]):
            return True
        self._not_before = time.monotonic() + RETRY_PAUSE * 2 ** max(len(spent) - 1, 0)
        return len(spent) <= retries.max


def brought_forward(attempt: dict[str, Any]) -> bool:
    """Whether a trial left by itself, to be started again, further on than it came."""
    return bool(attempt.get("code") == exit_codes.REQUEUE and attempt["step"] > attempt["from_step"])


class Active:
    """A configuration whose claim this worker holds."""

    def __init__(self, opened: Opened, study: Study, claim: Claim, say: Callable[[str], None]) -> None:
        self.claim, self._opened, self._study, self._say = claim, opened, study, say
        self._pruned = False
        self.runs = [Run(opened, trial, self._changed) for trial in trials_of(opened, claim)]
        for run in self.runs:
            if run.trial.ended:
                self._study.record(claim, run.trial.trial, run.trial.as_dict())
            else:
                run.trial.state = "waiting"  # the worker that ran it died
        self._judge()

    def _changed(self, trial: Trial) -> None:
        """Write the record, its directory first: what it says was done is never done again."""
        ledger.write(self._opened.directory.trial(trial.trial), trial)
        self._study.record(self.claim, trial.trial, trial.as_dict())
        if trial.state != "running":
            self._say(describe(self._opened, trial))

    def follow(self) -> str | None:
        """Look after all trials; returns how the configuration ended: done, pruned, failed, stopped, or None."""
        ended = [(run, how) for run in self.runs if (how := run.look()) is not None]
        self._judge()  # before anything is written down: a trial may have come to its end in this very moment
        for run, how in ended:
            run.end(how)
            if run.trial.kind == "configuration":
                self._same_mistake(run.trial)
        if any(run.process is not None for run in self.runs):
            return None
        states = {run.trial.state for run in self.runs}
        if self._pruned:
            return "pruned"
        if states <= set(ledger.ENDED):
            return "done" if states == {"done"} else "failed"
        return "stopped" if any(run.asked == "stopped" for run in self.runs) else None

    def _judge(self) -> None:
        """Report the mean over replicates for every step that all of them have; stop all when it is not good enough."""
        curves = [run.curve.points for run in self.runs]
        for step in sorted(set(curves[0]).intersection(*curves[1:])):
            mean = statistics.fmean(points[step] for points in curves)
            if self._pruned or not math.isfinite(mean):
                return
            if self._study.report(self.claim, step, mean):
                self._pruned = True
                for run in [run for run in self.runs if run.trial.state != "failed"]:
                    run.prune(step)
                    run.ask("pruned")
                    if run.process is None:
                        self._changed(run.trial)

    def _same_mistake(self, failed: Trial) -> None:
        """Replicates of a configuration that was refused would be refused too."""
        for run in self.runs:
            if run.trial.state == "waiting":
                run.trial.state, run.trial.kind, run.trial.code = "failed", failed.kind, failed.code
                run.trial.reason = failed.reason
                self._changed(run.trial)

    def stop(self, *, at_once: bool = False) -> None:
        """Ask all trials to save and leave, to be gone on with later; or end them."""
        for run in self.runs:
            run.ask("stopped")
            if at_once:
                run.kill()

    def value(self) -> float | None:
        """Mean over the replicates, when all of them are done."""
        values = [run.trial.value for run in self.runs if run.trial.state == "done" and run.trial.value is not None]
        return statistics.fmean(values) if len(values) == len(self.runs) else None


def command_of(opened: Opened, trial: Trial) -> list[str]:
    """The command line of a trial; given again, it goes on with it."""
    program = list(opened.sweep.program) or [sys.executable, "-m", "lightning_nlp", "fit"]
    files = [part for file in opened.directory.base_files() for part in ("-c", str(file.absolute()))]
    run = opened.directory.trial(trial.trial).absolute()
    return [*program, *files, "--run", str(run), *space.flags(trial.settings)]


def describe(opened: Opened, trial: Trial) -> str:
    """One line about a trial."""
    shown: dict[str, Any] = {key: trial.settings[key] for key in space.varied(opened.sweep) if key in trial.settings}
    if opened.sweep.replicate is not None:
        shown[opened.sweep.replicate.key] = trial.replicate
    settings = " ".join(f"{key.rpartition('.')[2]}={plain(value)}" for key, value in shown.items())
    value = "" if trial.value is None else f" {opened.sweep.metric.name} {trial.value:.4f}"
    state = "to be started again" if trial.state == "waiting" else trial.state
    reason = f": {trial.reason}" if trial.reason and trial.state != "done" else ""
    return f"trial {trial.number} [{trial.trial}] {settings}: {state}{value} at step {trial.step}{reason}"
