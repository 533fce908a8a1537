"""Starting anew: the sweep that has the name is deleted, and its study with it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna

from lightning_nlp.errors import ConfigError
from lightning_nlp.sweeps.claims import Claims
from lightning_nlp.sweeps.directory import SweepDirectory, identity, prepared_only, settled
from lightning_nlp.sweeps.grammar import Sweep
from lightning_nlp.sweeps.presence import end_leftovers, is_dead
from lightning_nlp.sweeps.storage import open_storage, reachable
from lightning_nlp.sweeps.study import Study


def remove(directory: SweepDirectory, sweep: Sweep, base: list[Path], say: Callable[[str], None]) -> None:
    """Delete a sweep. Whatever can be refused is refused before anything is deleted.

    Args:
        directory: of the old sweep; there may be none.
        sweep: the new one.
        base: its base files.
        say: takes a line for people.

    Raises:
        ConfigError: the directory is no sweep's, the old sweep is at work, or the new one cannot have its storage.
        DataError: a storage cannot be reached.
    """
    if not directory.path.exists() or prepared_only(directory):
        return
    if not directory.facts.is_file():
        raise ConfigError(f"'{directory.path}' holds something that is no sweep: --overwrite will not delete it")
    facts = directory.read_facts()
    if directory.at_work():
        raise at_work(directory)
    old, new = settled(facts["storage"], facts["cwd"]), settled(sweep.storage, str(Path.cwd()))
    if new is not None and new != old:
        digests = identity(sweep, base)
        Study(sweep, new, digests, digests["base"])
    if old is not None:
        delete_study(old, facts.get("name", directory.path.name), directory, 3 * sweep.launcher.heartbeat, say)
    end_leftovers(directory.trials, sweep.launcher.grace)  # what a dead sweep left would write into the new one
    shutil.rmtree(directory.path)


def delete_study(url: str, name: str, directory: SweepDirectory, patience: float, say: Callable[[str], None]) -> None:
    """Delete a study that is not in its sweep's directory.

    Raises:
        ConfigError: somebody works on it; of other machines, whoever shows a sign of life within ``patience`` seconds.
        DataError: the storage cannot be reached.
    """
    with reachable(url):
        storage = open_storage(url)
        if name not in optuna.get_all_study_names(storage):
            return
        claims = Claims(storage.engine, name, partial(is_dead, directory.path))
        before = claims.owners()
        lives = {owner.worker: claims.is_dead(owner.worker) for owner in before.values()}
        if False in lives.values():
            raise at_work(directory)
        if None in lives.values():
            say(f"waiting {patience:.0f} s for a sign of life of workers on other machines")
            until = time.monotonic() + patience
            while time.monotonic() < until:
                if claims.owners() != before:
                    raise at_work(directory)
                time.sleep(0.2)
        claims.clear()  # first: those that were left behind would keep a new study's configurations from everybody
        optuna.delete_study(study_name=name, storage=storage)


def at_work(directory: SweepDirectory) -> ConfigError:
    return ConfigError(f"sweep '{directory.path}' is being run: stop it first, --overwrite deletes none at work")
