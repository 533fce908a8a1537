"""Prepared sets: the shards of one source, found again by a fingerprint, and never used when anything changed.

A set is a folder named by what it holds: source, columns and tokenizer. ``manifest.json`` is written last and makes it
valid; ``stamps.json`` notes sizes and times of files whose checksums were found right, so that only files that were
touched since are read again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_nlp.data.order.joined import JoinedSource
from lightning_nlp.data.prepared.source import PreparedSource
from lightning_nlp.data.sources.source import Source
from lightning_nlp.data.tokenizers.tokenizer import TokenizerConfig
from lightning_nlp.run.files import sha256, write_json

FORMAT = 1
"""Raised when shards are laid out differently."""
MANIFEST, STAMPS, TOKENIZER = "manifest.json", "stamps.json", "tokenizer.json"


@dataclass(frozen=True)
class Identity:
    """What fixes every byte of a set.

    Attributes:
        source: fingerprint of content and settings of the source.
        splits: the name of every split, with which ids begin.
        columns: ``{field: column}``.
        texts: fields that are tokenised.
        words: whether tokens that begin a word are noted.
        also: what counts as a bad row beyond what always does.
        tokenizer: its hash, or how it is trained.
    """

    source: str
    splits: dict[str, str]
    columns: dict[str, str]
    texts: list[str]
    words: bool
    also: list[str]
    tokenizer: str

    @property
    def key(self) -> str:
        """Name of the set's folder."""
        text = json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def recipe(config: TokenizerConfig, trained_on: str) -> str:
    """What a tokenizer will be that is still to be trained: the same texts and settings give the same one."""
    settings = {name: value for name, value in asdict(config).items() if name != "path"}
    text = json.dumps({"trained_on": trained_on, **settings}, sort_keys=True)
    return f"trained {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def parts_of(splits: dict[str, Source]) -> dict[str, dict[str, Source]]:
    """``{source: {split: rows}}``; a source that is no part of a mixture is called ''."""
    if not any(isinstance(source, JoinedSource) for source in splits.values()):
        return {"": splits}
    parts: dict[str, dict[str, Source]] = {}
    for split, joined in splits.items():
        assert isinstance(joined, JoinedSource)
        for name, source in joined.parts.items():
            parts.setdefault(name, {})[split] = source
    return parts


def rejoined(splits: dict[str, Source], parts: dict[str, dict[str, Source]]) -> dict[str, Source]:
    """The same splits of other parts."""
    if "" in parts:
        return parts[""]
    return {
        split: JoinedSource(split, {name: part[split] for name, part in parts.items() if split in part})
        for split in splits
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished set; None where there is none."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == FORMAT else None


def splits_of(folder: Path, manifest: dict[str, Any], originals: dict[str, Source]) -> dict[str, Source]:
    """The splits of a set, in place of those it was made from."""
    texts, dtype = manifest["identity"]["texts"], manifest["dtype"]
    return {
        split: PreparedSource(folder, manifest["splits"][split], texts, dtype, original)
        for split, original in originals.items()
    }


def records_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """Of all shards."""
    return [record for split in manifest["splits"].values() for record in split["shards"]]


def stamp(path: Path) -> list[int]:
    """Size, and time of the last change in nanoseconds."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def damage(folder: Path, manifest: dict[str, Any], *, thorough: bool = False) -> str | None:
    """What is wrong with the files of a set, or None.

    Args:
        folder: the set.
        manifest: what it says of itself.
        thorough: read every byte, not only files that were touched since they were last read in full.
    """
    stamps = read_stamps(folder)
    seen = dict(stamps)
    expected = {name: about for record in records_of(manifest) for name, about in record["files"].items()}
    expected[TOKENIZER] = manifest["tokenizer_file"]
    for name, about in expected.items():
        if (wrong := damage_of_file(folder / name, about, None if thorough else stamps.get(name))) is not None:
            return wrong
        seen[name] = stamp(folder / name)
    if seen != stamps:
        write_stamps(folder, seen)
    return None


def damage_of_file(path: Path, about: dict[str, Any], known: list[int] | None) -> str | None:
    """What is wrong with one file, or None; ``known`` is its stamp when it was last found right."""
    if not path.is_file():
        return f"{path.name} is missing"
    now = stamp(path)
    if now[0] != about["bytes"]:
        return f"{path.name} has {now[0]} bytes instead of {about['bytes']}"
    if now != known and sha256(path) != about["sha256"]:
        return f"{path.name} does not match its checksum"
    return None


def read_stamps(folder: Path) -> dict[str, list[int]]:
    try:
        found = json.loads((folder / STAMPS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_stamps(folder: Path, stamps: dict[str, list[int]]) -> None:
    """Remember; a set that cannot be written to is read in full every time."""
    try:
        write_json(folder / STAMPS, stamps)
    except OSError:
        return


def describe_files(paths: list[Path]) -> list[dict[str, Any]]:
    """What the files of a source were, to tell an edited file from one that was only moved."""
    return [{"name": path.name, "stamp": stamp(path), "sha256": sha256(path)} for path in paths]


def edited(paths: list[Path], known: list[dict[str, Any]]) -> str | None:
    """The first of ``paths`` whose content is no longer what it was; reads those that were touched.

    The source's own fingerprint looks at names, sizes and both ends of files.
    """
    for path, about in zip(paths, known, strict=False):
        if stamp(path) != about["stamp"] and sha256(path) != about["sha256"]:
            return str(path)
    return None


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between the settings of a set and those of a run, in a few words."""
    words = {"source": "the data", "words": "whole words", "also": "also_bad", "splits": "the splits"}
    found = [
        f"{name} {before['settings'].get(name)} -> {value}"
        for name, value in now["settings"].items()
        if before["settings"].get(name) != value
    ]
    settings = bool(found)
    for name, word in words.items():
        if before["identity"][name] != now["identity"][name] and not (name == "source" and settings):
            found.append(f"{word} changed")
    if before["tokenizer"] != now["tokenizer"]:
        found.append("the tokenizer changed")
    return ", ".join(found) or "how the tokenizer is trained changed"
