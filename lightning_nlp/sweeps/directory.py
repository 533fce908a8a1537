"""The directory of a sweep: a copy of its file and of its base files, the study, trials, and reports."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.run.files import sha256, write_json, write_text
from lightning_nlp.sweeps import keys, presence
from lightning_nlp.sweeps.grammar import Sweep, read_sweep
from lightning_nlp.sweeps.ledger import VERSION
from lightning_nlp.sweeps.space import canonical

ROOT = Path("runs/sweeps")


@dataclass(frozen=True)
class SweepDirectory:
    """Paths inside ``runs/sweeps/<name>/``."""

    path: Path

    @property
    def file(self) -> Path:
        """The sweep's YAML, as it is now."""
        return self.path / "sweep.yaml"

    @property
    def facts(self) -> Path:
        """Version, name, identity, working directory and storage."""
        return self.path / "sweep.json"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    @property
    def best(self) -> Path:
        return self.path / "best.yaml"

    def trial(self, digest: str) -> Path:
        """The run directory of one trial."""
        return self.trials / digest

    def base_files(self) -> list[Path]:
        """Copies of the base files, in their order: editing the originals changes nothing any more."""
        return sorted((self.path / "base").glob("*.y*ml"))

    def storage(self, sweep: Sweep) -> str:
        return sweep.storage or f"sqlite:///{self.path / 'study.db'}"

    def at_work(self) -> bool:
        """Whether a worker that sees this directory is alive."""
        return any(presence.is_locked(path) for path in self.path.glob("workers/*.lock"))

    def read_facts(self) -> dict[str, Any]:
        """The content of ``sweep.json``.

        Raises:
            ConfigError: it is missing, damaged, or of another version.
        """
        try:
            facts = json.loads(self.facts.read_text(encoding="utf-8"))
            version = facts["version"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"'{self.path}' is no directory of a sweep: {self.facts.name} cannot be read") from error
        if version != VERSION:
            raise ConfigError(
                f"'{self.path}' is a ledger of version {version}, this is lightning-nlp with version {VERSION}"
            )
        return dict(facts)


@dataclass(frozen=True)
class Opened:
    """A sweep, where it lives, and the digest of its base files, which is part of every trial's name."""

    sweep: Sweep
    directory: SweepDirectory
    identity: dict[str, str]
    cwd: Path

    @property
    def base(self) -> str:
        return self.identity["base"]


def identity(sweep: Sweep, base: list[Path]) -> dict[str, str]:
    """What makes two sweeps the same: a digest for every part of the file that decides about configurations."""
    parts: dict[str, Any] = {
        "method": sweep.method,
        "metric": vars(sweep.metric),
        "seed": sweep.seed,
        "program": sweep.program,
        "trials": sweep.trials,
        "early_terminate": None if sweep.early_terminate is None else vars(sweep.early_terminate),
        "base": [sha256(file) for file in base],
    }
    for each in sweep.parameters:
        parts[f"parameters.{each.key}"] = {**vars(each), "expression": each.expression and each.expression.text}
    return {name: hashlib.sha256(canonical(value).encode()).hexdigest()[:16] for name, value in parts.items()}


def base_of(sweep: Sweep) -> list[Path]:
    """The base files as they are named in the sweep.

    Raises:
        ConfigError: one does not exist.
    """
    files = [Path(file) for file in sweep.base]
    for file in files:
        if not file.is_file():
            siblings = [path.name for path in file.parent.glob("*.y*ml")] if file.parent.is_dir() else []
            raise ConfigError(f"base: '{file}' does not exist{nearest(file.name, siblings)}")
    return files


def create(file: Path, root: Path) -> Opened:
    """Make the directory of a new sweep.

    Raises:
        ConfigError: the file is wrong, a base file does not exist, or the directory does.
    """
    sweep = read_sweep(file)
    base = base_of(sweep)
    directory = SweepDirectory(root / sweep.name)
    refuse_started(directory)
    if directory.facts.exists():
        shutil.rmtree(directory.path)  # refused before its first trial: the corrected file may use its name
    if directory.path.exists() and not prepared_only(directory):
        raise ConfigError(f"'{directory.path}' holds something that is no sweep: choose another name")
    cwd = str(Path.cwd())
    facts = {"version": VERSION, "name": sweep.name, "identity": identity(sweep, base), "cwd": cwd}
    facts["storage"] = settled(sweep.storage, cwd)
    try:
        for number, path in enumerate(base):
            write_text(directory.path / "base" / f"{number:02d}-{path.name}", path.read_text(encoding="utf-8"))
        write_text(directory.file, file.read_text(encoding="utf-8"))
        write_json(directory.facts, facts)  # last: a directory without it is none
    except OSError as error:
        raise ConfigError(f"cannot create sweep directory '{directory.path}': {error.strerror}") from error
    return open_directory(directory)


def refuse_started(directory: SweepDirectory) -> None:
    """Raise where a sweep has trials, or somebody is about to start them.

    Raises:
        ConfigError: with the line that goes on with it.
    """
    if directory.facts.exists() and (directory.trials.exists() or directory.at_work()):
        raise ConfigError(f"sweep '{directory.path}' exists: go on with `lightning-nlp sweep resume {directory.path}`")


def prepared_only(directory: SweepDirectory) -> bool:
    """True for what :func:`create` leaves when it is killed before its end."""
    names = {path.name for path in directory.path.iterdir()}
    return names <= {"base", "sweep.yaml", ".sweep.yaml.partial", ".sweep.json.partial"}


def open_directory(directory: SweepDirectory) -> Opened:
    """A sweep that exists.

    Raises:
        ConfigError: there is none, it is of another version, or its files were changed by hand.
    """
    facts = directory.read_facts()
    sweep = read_sweep(directory.file, facts.get("name", directory.path.resolve().name))
    sweep = replace(sweep, storage=settled(facts["storage"], facts["cwd"]))
    now = identity(sweep, directory.base_files())
    changed = changes(facts["identity"], now)
    if changed:
        raise ConfigError(f"'{directory.path}' was edited by hand: {', '.join(changed)} differ from its beginning")
    cwd = Path(facts["cwd"])
    return Opened(sweep, directory, now, cwd if cwd.is_dir() else Path.cwd())


def find(target: Path, root: Path, *, create_missing: bool = False) -> Opened:
    """The sweep of a directory, or of a file, whose later edits are taken over where that is possible.

    Args:
        target: a sweep's directory, or its file.
        root: where directories of sweeps are.
        create_missing: make one for a file that has none (a worker on a machine of its own).

    Raises:
        ConfigError: there is none, or the file has become another sweep; a key of a new one is wrong.
    """
    if target.is_dir():
        return open_directory(SweepDirectory(target))
    if not target.exists() and (root / target / "sweep.json").is_file():
        return open_directory(SweepDirectory(root / target))  # named without its root
    if not target.exists() and target.suffix not in (".yaml", ".yml"):
        known = [path.parent.name for path in root.glob("*/sweep.json")]
        raise ConfigError(f"there is no sweep at '{target}'{nearest(target.name, known)}")
    sweep = read_sweep(target)
    directory = SweepDirectory(root / sweep.name)
    if not directory.facts.is_file():
        if create_missing:
            keys.check(sweep, base_of(sweep), Path.cwd())
            return create(target, root)
        raise ConfigError(f"sweep '{directory.path}' was not started: use `lightning-nlp sweep run {target}`")
    facts = directory.read_facts()
    changed = changes(facts["identity"], identity(sweep, base_of(sweep)))
    if settled(sweep.storage, facts["cwd"]) != settled(facts["storage"], facts["cwd"]):
        changed.append("storage")
    if changed:
        raise ConfigError(
            f"'{target}' was edited since '{directory.path}' began: {', '.join(changed)}; only run_cap, retries, "
            "launcher and description may change: give the new one another name"
        )
    if target.read_text(encoding="utf-8") != directory.file.read_text(encoding="utf-8"):
        write_text(directory.file, target.read_text(encoding="utf-8"))
    return open_directory(directory)


def settled(storage: str | None, cwd: str) -> str | None:
    """A storage that is the same from everywhere: a relative file is one of the directory the sweep began in."""
    if storage is None or not storage.startswith("sqlite:///"):
        return storage
    return f"sqlite:///{Path(cwd) / storage.removeprefix('sqlite:///')}"


def changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Parts that differ."""
    return [part for part in dict.fromkeys([*before, *now]) if before.get(part) != now.get(part)]
