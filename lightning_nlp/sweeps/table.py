"""The live table of a terminal; plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lightning_nlp.sweeps import space
from lightning_nlp.sweeps.active import Run
from lightning_nlp.sweeps.directory import Opened
from lightning_nlp.sweeps.parameters import plain
from lightning_nlp.sweeps.results import duration, short_names

REFRESH = 0.5
"""Seconds between two pictures."""


class Display:
    """Trials at work, below the lines about those that ended.

    Args:
        opened: the sweep.
        console: where to write; a live table only on a terminal.
        overview: gives the line above the table; asked at most every two seconds.
    """

    def __init__(self, opened: Opened, console: Console, overview: Callable[[], str] = lambda: "") -> None:
        self._opened, self._console, self._overview = opened, console, overview
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._drawn = self._asked = float("-inf")
        self._line = ""

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.__exit__(None, None, None)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, runs: list[Run]) -> None:
        """Draw the table anew, now and then."""
        now = time.monotonic()
        if self._live is None or now - self._drawn < REFRESH:
            return
        if now - self._asked > 2:
            self._line, self._asked = self._overview(), now
        self._drawn = now
        self._live.update(Group(Text(self._line), self.table(runs)), refresh=True)

    def table(self, runs: list[Run]) -> Table:
        """Trials at work, one a row."""
        sweep = self._opened.sweep
        keys = space.varied(sweep) + ([sweep.replicate.key] if sweep.replicate is not None else [])
        names = short_names(keys)
        table = Table(box=None, pad_edge=False)
        for column in ["#", *(names[key] for key in keys), "state", "step", sweep.metric.name, "time"]:
            table.add_column(column, no_wrap=True)
        for run in runs:
            last = run.curve.points[max(run.curve.points)] if run.curve.points else None
            state = f"{run.asked}, leaving" if run.asked and run.process is not None else run.trial.state
            table.add_row(
                str(run.trial.number),
                *(plain(run.trial.settings[key]) if key in run.trial.settings else "" for key in keys),
                state,
                str(run.curve.step),
                "-" if last is None else f"{last:.4f}",
                duration(run.seconds),
            )
        return table
