"""Who runs which configuration: a table of our own beside optuna's, in the same database.

Optuna gives every waiting configuration to one worker only, but has no way to hand over one whose worker died without
ending it, and an ended one would count twice in successive halving. Here a claim is a row that changes hands in one
conditional UPDATE. A worker that lives adds one to the `beat` of its rows; clocks are never compared.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from lightning_nlp.sweeps.storage import LOST, patient

CONTROLLER = -1
"""In place of a trial: the right to run the sweep and to report."""
PLANNER = -2
"""In place of a trial: the right to add configurations."""


@dataclass(frozen=True)
class Owner:
    """The worker a row belongs to, and how often it said that it lives."""

    worker: str
    beat: int


class Claims:
    """Rows of one study.

    Args:
        engine: of the database.
        study: its name.
        is_dead: True, False or None (unknown) for the name of a worker.
    """

    def __init__(
        self, engine: sa.Engine, study: str, is_dead: Callable[[str], bool | None] = lambda name: None
    ) -> None:
        self._engine, self._study, self.is_dead = engine, study, is_dead
        self._table = sa.Table(
            "lightning_nlp_claims",
            sa.MetaData(),
            sa.Column("study", sa.String(128), primary_key=True),
            sa.Column("trial", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("worker", sa.String(200), nullable=False),
            sa.Column("beat", sa.BigInteger, nullable=False),
        )
        try:
            self._table.create(engine, checkfirst=True)
        except sa.exc.DBAPIError:  # another worker was first
            if not sa.inspect(engine).has_table(self._table.name):
                raise
        self._seen: dict[int, tuple[Owner, float]] = {}

    @patient
    def take(self, trial: int, worker: str) -> bool:
        """Claim what nobody ever claimed; False when somebody did."""
        row = sa.insert(self._table).values(study=self._study, trial=trial, worker=worker, beat=0)
        try:
            with self._engine.begin() as connection:
                connection.execute(row)
        except sa.exc.IntegrityError:
            return self._is_of(trial, worker)  # our own, when the database was lost before it could say so
        return True

    def inherit(self, trial: int, owner: Owner, worker: str, patience: float) -> bool:
        """Claim what belongs to a worker that is dead, or, where nobody here can know, that was silent for long.

        Args:
            owner: as it was seen.
            worker: who asks.
            patience: seconds of silence that count as death.
        """
        dead = self.is_dead(owner.worker)
        if dead is None:
            dead = self.silent_for(trial, owner) > patience
        return dead and self.take_over(trial, owner, worker)

    def is_free(self, owner: Owner | None) -> bool:
        """Whether nobody works on it, as far as this machine knows."""
        return owner is None or bool(self.is_dead(owner.worker))

    @patient
    def take_over(self, trial: int, seen: Owner, worker: str) -> bool:
        """Claim what belongs to ``seen``, unless it showed a sign of life, or another worker was faster."""
        mine = self._row(trial) & (self._table.c.worker == seen.worker) & (self._table.c.beat == seen.beat)
        with self._engine.begin() as connection:
            done = connection.execute(sa.update(self._table).where(mine).values(worker=worker, beat=seen.beat + 1))
        return done.rowcount == 1 or self._is_of(trial, worker)

    def release(self, trial: int, worker: str) -> None:
        """Let go: whoever comes next may go on, without finding out first that the worker is gone."""
        mine = self._row(trial) & (self._table.c.worker == worker)
        with contextlib.suppress(*LOST), self._engine.begin() as connection:
            connection.execute(sa.update(self._table).where(mine).values(worker=""))

    @patient
    def beat(self, worker: str) -> set[int]:
        """Show a sign of life; returns the trials that belong to the worker still."""
        mine = (self._table.c.study == self._study) & (self._table.c.worker == worker)
        with self._engine.begin() as connection:
            connection.execute(sa.update(self._table).where(mine).values(beat=self._table.c.beat + 1))
            return {row.trial for row in connection.execute(sa.select(self._table.c.trial).where(mine))}

    def clear(self) -> None:
        """Forget all rows: the study is to be deleted."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(self._table).where(self._table.c.study == self._study))

    def owners(self) -> dict[int, Owner]:
        """All rows of the study."""
        wanted = sa.select(self._table).where(self._table.c.study == self._study)
        with self._engine.connect() as connection:
            return {row.trial: Owner(row.worker, row.beat) for row in connection.execute(wanted)}

    def silent_for(self, trial: int, owner: Owner) -> float:
        """Seconds since this process first saw the row as it is now; exactly 0 the first time."""
        before = self._seen.get(trial)
        if before is None or before[0] != owner:
            self._seen[trial] = (owner, time.monotonic())
            return 0.0
        return time.monotonic() - before[1]

    def _is_of(self, trial: int, worker: str) -> bool:
        return self.owners()[trial].worker == worker

    def _row(self, trial: int) -> sa.ColumnElement[bool]:
        return (self._table.c.study == self._study) & (self._table.c.trial == trial)
