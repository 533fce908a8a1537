"""Finding the prepared shards of a DataModule's sources, and saying in one line whether they are used, or why not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nlp.data.prepared.sets import (
    TOKENIZER,
    Identity,
    changes,
    damage,
    edited,
    parts_of,
    read_manifest,
    recipe,
    records_of,
    rejoined,
    splits_of,
)
from lightning_nlp.data.sources import files
from lightning_nlp.data.sources.source import Source, SourceConfig, is_hub, targets_of
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning_nlp.data.module import TextDataModule


@dataclass(frozen=True)
class Part:
    """One source of a DataModule: all its splits, and what they were opened with."""

    splits: dict[str, Source]
    config: SourceConfig
    columns: dict[str, str]

    @property
    def shown(self) -> str:
        """Where it is, as the user wrote it."""
        path = self.config.path
        return path if isinstance(path, str) else ", ".join(path)

    @property
    def settings(self) -> dict[str, Any]:
        """All that was asked for but the place, and what is done about bad rows."""
        without = ("path", "bad_rows", "bad_rows_budget", "also_bad")
        return {name: value for name, value in asdict(self.config).items() if name not in without}

    def files(self) -> list[Path]:
        """Its files, where they are local ones."""
        if is_hub(self.config):
            return []
        groups, _ = files.find(self.config.path, self.config.format, self.config.pair)
        found = [*groups.values(), *targets_of(groups, self.config).values()]
        return [path for paths in found for path in paths]


def root_of(data: TextDataModule) -> Path:
    """The folder of prepared sets: ``data.prepared``, or ``prepared`` in the data directory."""
    return files.data_directory() / "prepared" if data.prepared == "auto" else Path(data.prepared)


def parts(data: TextDataModule) -> dict[str, Part]:
    """The sources of ``data``, which must be opened, by name; one that is no part of a mixture is called ''."""
    return {
        name: Part(splits, data.config_of(name), data.columns_of(name))
        for name, splits in parts_of(data.splits).items()
    }


def identities(data: TextDataModule, part: Part, tokenizer: Tokenizer | None) -> Iterator[Identity]:
    """What a set for ``part`` may be known by: a tokenizer's hash, and how it is trained if it is not a given one."""
    names = {split: source.name for split, source in part.splits.items()}
    source = next(iter(part.splits.values())).fingerprint
    also: list[str] = sorted(part.config.policy.also - {"long"})  # what is long is decided when rows are used
    known = [] if tokenizer is None else [tokenizer.hash]
    if data.tokenizer_config.path is None and "train" in data.splits:
        known.append(recipe(data.tokenizer_config, f"{data.splits['train'].fingerprint} {also}"))
    for name in known:
        yield Identity(source, names, part.columns, list(data.tokenised), data.needs_words, also, name)


def wanted(data: TextDataModule) -> bool:
    """Whether prepared shards are looked for; predictions show texts, which shards do not have."""
    predicting = "predict" in (data.stage, getattr(getattr(data.trainer, "state", None), "fn", None))
    return data.prepared != "none" and bool(data.tokenised) and not predicting and bool(data.splits)


def prepared_tokenizer(data: TextDataModule) -> Path | None:
    """The tokenizer that was trained when the shards were prepared, for a run that would train the same one."""
    if not wanted(data):
        return None
    for part in parts(data).values():
        for identity in identities(data, part, None):
            folder = root_of(data) / identity.key
            manifest = read_manifest(folder)
            if manifest is None or edited(part.files(), manifest["files"]) is not None:
                continue
            if damage(folder, {**manifest, "splits": {}}) is None:
                return folder / TOKENIZER
    return None


def use_prepared(data: TextDataModule, report: Callable[[str], None]) -> dict[str, Source]:
    """The opened splits of ``data``, out of prepared shards where there are some and nothing changed since.

    Args:
        data: with sources opened and its tokenizer.
        report: told in one line what is used, or why it is not.

    Raises:
        ConfigError: ``data.prepared`` names a folder that has no such shards.
        DataError: it has, but they are damaged.
    """
    if not wanted(data):
        return data.splits
    found: dict[str, dict[str, Source]] = {}
    for name, part in parts(data).items():
        try:
            folder, manifest = find(data, part)
        except (ConfigError, DataError) as problem:
            if data.prepared != "auto":
                raise
            if str(problem):
                report(f"{problem}; `lightning-nlp prepare` mends it")
            found[name] = part.splits
            continue
        rows = sum(split["rows"] for split in manifest["splits"].values())
        tokens = sum(sum(record["tokens"].values()) for record in records_of(manifest))
        report(f"using prepared shards {folder} ({rows} documents, {tokens} tokens)")
        found[name] = splits_of(folder, manifest, part.splits)
    return rejoined(data.splits, found)


def find(data: TextDataModule, part: Part) -> tuple[Path, dict[str, Any]]:
    """The set of one source.

    Raises:
        ConfigError: there is none; the message says what changed since the last one was made (with ``auto`` it is
            empty when there never was one).
        DataError: it is damaged.
    """
    root, tokenizer = root_of(data), data.tokenizer
    assert tokenizer is not None
    for identity in identities(data, part, tokenizer):
        folder = root / identity.key
        manifest = read_manifest(folder)
        if manifest is None:
            continue
        if (file := edited(part.files(), manifest["files"])) is not None:
            raise ConfigError(f"prepared shards {folder} are not used: {file} changed since")
        if manifest["tokenizer"] != tokenizer.hash:
            raise ConfigError(f"prepared shards {folder} are not used: the run has another tokenizer")
        if (wrong := damage(folder, manifest)) is not None:
            raise DataError(f"prepared shards {folder} are not used: {wrong}")
        return folder, manifest
    wish = asdict(next(identities(data, part, tokenizer)))
    now = {"identity": wish, "settings": part.settings, "tokenizer": tokenizer.hash}
    if (old := newest_alike(root, part, now)) is not None:
        folder, manifest = old
        raise ConfigError(f"prepared shards {folder} are not used: {changes(manifest, now)} since")
    if data.prepared == "auto":
        raise ConfigError("")
    raise ConfigError(f"data.prepared '{root}' has no shards of {part.shown} (`lightning-nlp prepare` makes them)")


def newest_alike(root: Path, part: Part, now: dict[str, Any]) -> tuple[Path, dict[str, Any]] | None:
    """The newest set that was made from the same place for the same fields."""
    alike = []
    for folder in root.iterdir() if root.is_dir() else []:
        manifest = read_manifest(folder)
        if manifest is None or manifest["path"] != part.shown:
            continue
        if manifest["identity"]["columns"] == now["identity"]["columns"]:
            alike.append((manifest["made"], folder, manifest))
    if not alike:
        return None
    _, folder, manifest = max(alike, key=lambda item: item[0])
    return folder, manifest


def say(line: str) -> None:
    print(f"lightning-nlp: {line}", file=sys.stderr)
