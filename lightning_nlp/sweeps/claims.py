"""Who runs which configuration: a table of our own beside optuna's, in the same database.

Optuna gives every waiting configuration to one worker only, but has no way to hand over one whose worker died without
ending it, and an ended one would count twice in successive halving. Here a claim is a row that changes hands in one
conditional UPDATE. A worker that lives adds one to the `beat` of its rows; clocks are never compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import sqlalchemy as sa

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
    """Rows of one study."""

    def __init__(self, engine: sa.Engine, study: str) -> None:
        self._engine, self._study = engine, study
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

    def take(self, trial: int, worker: str) -> bool:
        """Claim what nobody ever claimed; False when somebody did."""
        row = sa.insert(self._table).values(study=self._study, trial=trial, worker=worker, beat=0)
        try:
            with self._engine.begin() as connection:
                connection.execute(row)
        except sa.exc.IntegrityError:
            return False
        return True

    def take_over(self, trial: int, seen: Owner, worker: str) -> bool:
        """Claim what belongs to ``seen``, unless it showed a sign of life, or another worker was faster."""
        mine = self._row(trial) & (self._table.c.worker == seen.worker) & (self._table.c.beat == seen.beat)
        with self._engine.begin() as connection:
            done = connection.execute(sa.update(self._table).where(mine).values(worker=worker, beat=seen.beat + 1))
        return done.rowcount == 1

    def release(self, trial: int, worker: str) -> None:
        """Let go: whoever comes next may go on."""
        mine = self._row(trial) & (self._table.c.worker == worker)
        with self._engine.begin() as connection:
            connection.execute(sa.update(self._table).where(mine).values(worker=""))

    def beat(self, worker: str) -> set[int]:
        """Show a sign of life; returns the trials that belong to the worker still."""
        mine = (self._table.c.study == self._study) & (self._table.c.worker == worker)
        with self._engine.begin() as connection:
            connection.execute(sa.update(self._table).where(mine).values(beat=self._table.c.beat + 1))
            return {row.trial for row in connection.execute(sa.select(self._table.c.trial).where(mine))}

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

    def _row(self, trial: int) -> sa.ColumnElement[bool]:
        return (self._table.c.study == self._study) & (self._table.c.trial == trial)
