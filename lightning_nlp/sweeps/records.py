"""The trials of a configuration, from what their directories and the study say of them."""

from __future__ import annotations

from dataclasses import replace

from lightning_nlp.sweeps import ledger, space
from lightning_nlp.sweeps.directory import Opened
from lightning_nlp.sweeps.ledger import Trial
from lightning_nlp.sweeps.study import Cell, Claim, Study


def trials_of(opened: Opened, known: Claim | Cell) -> list[Trial]:
    """A record for every replicate; one that never started waits.

    Raises:
        ConfigError: a record is of another version.
    """
    found = []
    for settings in space.replicates(opened.sweep, known.settings):
        digest = space.digest(settings, opened.base)
        trial = ledger.latest(opened.directory.trial(digest), known.trials.get(digest))
        if trial is None:
            trial = Trial(digest, known.cell, known.number, settings)
            trial.replicate = None if opened.sweep.replicate is None else settings[opened.sweep.replicate.key]
        trial.number = known.number
        found.append(trial)
    return found


def put_back(opened: Opened, study: Study) -> int:
    """Have failed trials of failed configurations wait again, their attempts kept; returns how many configurations."""
    failed = [cell for cell in study.cells() if cell.state == "failed"]
    for cell in failed:
        trials = [waiting(trial) if trial.state == "failed" else trial for trial in trials_of(opened, cell)]
        study.put_back(cell, {trial.trial: trial.as_dict() for trial in trials})
        for trial in trials:  # second: of two records the one that was put back counts, wherever it is
            if ledger.read(opened.directory.trial(trial.trial)) is not None:
                ledger.write(opened.directory.trial(trial.trial), trial)
    return len(failed)


def waiting(trial: Trial) -> Trial:
    return replace(trial, state="waiting", kind="", reason="", code=None, value=None, retried=trial.retried + 1)
