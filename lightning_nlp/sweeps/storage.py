"""The database of a sweep: SQLite or PostgreSQL, opened by several at once, and asked with patience."""

from __future__ import annotations

import contextlib
import functools
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import sqlalchemy as sa
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage

from lightning_nlp.errors import ConfigError, DataError

P = ParamSpec("P")
T = TypeVar("T")
BUSY = 60
"""Seconds to wait for a SQLite file that another process writes to."""
TOGETHER = 20
"""How often to try again where workers that start at the same moment are in each other's way."""
WAITS = (1.0, 3.0, 9.0, 27.0)
"""Seconds before a database that did not answer is asked again: a server that is started anew is back by then."""
LOST = (sa.exc.OperationalError, sa.exc.InterfaceError, StorageInternalError)
"""What a database that is away, or that another holds for long, is seen by."""


def patient(ask: Callable[P, T]) -> Callable[P, T]:
    """Ask a database again when it does not answer; only for what may be done twice."""

    @functools.wraps(ask)
    def again(*args: P.args, **kwargs: P.kwargs) -> T:
        for pause in WAITS:
            try:
                return ask(*args, **kwargs)
            except LOST:
                time.sleep(pause)
        return ask(*args, **kwargs)

    return again


@contextlib.contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn what databases say into one line.

    Raises:
        ConfigError: there is no driver for it.
        DataError: it cannot be reached, or is locked.
    """
    try:
        yield
    except (sa.exc.DBAPIError, StorageInternalError, sqlite3.Error) as error:
        raise DataError(f"storage '{hidden(url)}': {cause(error)}") from error
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise ConfigError("storage: PostgreSQL needs a driver: pip install 'lightning_nlp[postgres]'") from error


def open_storage(url: str) -> RDBStorage:
    """SQLite with a write-ahead log and patience, or PostgreSQL with connections that are tried before use."""
    if url.startswith("sqlite:///"):
        path = Path(url.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=BUSY)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": BUSY}})
    driver = url.replace("postgresql://", "postgresql+psycopg://", 1)
    return RDBStorage(driver, engine_kwargs={"pool_pre_ping": True})


def together(make: Callable[[], T]) -> T:
    """Call ``make`` again when another worker makes the same tables, or the same study, at the same moment."""
    for _ in range(TOGETHER):
        try:
            return make()
        except (sa.exc.DBAPIError, StorageInternalError) as error:
            words = cause(error)
            if not any(sign in words for sign in ("already exists", "duplicate key", "UNIQUE constraint")):
                raise
        time.sleep(0.2 + 0.3 * random.random())
    return make()


def hidden(url: str) -> str:
    """A URL that can be shown: without a password."""
    return sa.engine.make_url(url).render_as_string(hide_password=True)


def cause(error: BaseException) -> str:
    """The innermost reason, in one line."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    line = " ".join(str(getattr(error, "orig", error)).split())
    return f"{line} (another process holds it)" if "locked" in line else line
