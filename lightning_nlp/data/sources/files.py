"""Local files: finding them, and telling format and split from their names."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import sys
from pathlib import Path

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, nearest

FORMATS = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
PACKED = ("parquet", "arrow")
"""Formats that are compressed inside, and not once more outside."""
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
Groups = dict[str, list[Path]]


def data_directory() -> Path:
    """Where sample corpora are built: ``LIGHTNING_NLP_DATA``, or ``data`` under the current directory."""
    return Path(os.environ.get("LIGHTNING_NLP_DATA", "data"))


def sample(name: str) -> Path:
    """The folder of a sample corpus, built on first use.

    Raises:
        ConfigError: no builder of that name.
    """
    build = registry.load(registry.BUILDERS, name, "sample")
    directory = data_directory() / name
    if not (directory / "info.json").is_file():
        print(f"building sample '{name}' in {directory} (once)", file=sys.stderr)
        build(directory)
    return directory


def format_of(path: Path) -> str | None:
    """The format that a file's name stands for; ``train.jsonl.gz`` holds JSON lines."""
    return FORMATS.get(inner_name(path).suffix.lower())


def find(path: str | list[str], kind: str, pair: list[str] | None = None) -> tuple[Groups, str]:
    """Files behind a path, grouped by split, and their format.

    Args:
        path: file, folder, glob or ``sample:NAME``; or a list of them.
        kind: format, or ``auto``.
        pair: endings of sources and targets; only sources are found then, which are text.

    Raises:
        ConfigError: nothing there, or several formats.
    """
    groups: Groups = {}
    formats: set[str] = set()
    for entry in [path] if isinstance(path, str) else path:
        for file in expand(entry, kind, pair):
            groups.setdefault(split_of(file, entry), []).append(file)
            formats.add("text" if pair else (format_of(file) or "text") if kind == "auto" else kind)
            if inner_name(file) != file and formats & set(PACKED):
                raise ConfigError(f"data.path '{file}': {formats.pop()} is compressed inside, unpack the file")
    if not groups:
        raise ConfigError("data.path is empty: give a file, a folder, a glob, hf:NAME or sample:NAME")
    if len(formats) > 1:
        raise ConfigError(f"data.path {path} holds {' and '.join(sorted(formats))} files: set data.format")
    if "train" not in groups and len(groups) == 1:
        groups = {"train": next(iter(groups.values()))}
    return {name: groups[name] for name in ("train", "validation", "test") if name in groups}, formats.pop()


def expand(entry: str, kind: str, pair: list[str] | None = None) -> list[Path]:
    """All data files that one entry of ``data.path`` means."""
    if entry.startswith("sample:"):
        entry = str(sample(entry.removeprefix("sample:")))
    path = Path(entry).expanduser()
    if path.is_file():
        if not os.access(path, os.R_OK):
            raise ConfigError(f"data.path '{path}' cannot be read: permission denied")
        return [path]
    if path.is_dir():
        known = FORMATS.values() if kind == "auto" else [kind]
        found = [file for file in sorted(path.rglob("*")) if format_of(file) in known and visible(file, path)]
        if pair is not None:
            sources = sorted(file for file in path.rglob(f"*.{pair[0]}*") if is_source(file, pair))
            found = [file for file in sources if visible(file, path)]
        if any(inner_name(file).suffix != ".json" for file in found):  # info.json and the like beside the data
            found = [file for file in found if inner_name(file).suffix != ".json"]
        if not found:
            what = f"*.{pair[0]}" if pair is not None else "data" if kind == "auto" else kind
            raise ConfigError(f"data.path '{path}' holds no {what} files")
        return found
    if glob.has_magic(entry):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        found = [file for file in found if pair is None or is_source(file, pair)]
        if not found:
            raise ConfigError(f"data.path '{entry}' matches no files")
        return found
    siblings = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
    hint = nearest(path.name, siblings) or " (for the Hugging Face Hub write hf:NAME)"
    raise ConfigError(f"data.path '{entry}' does not exist{hint}")


def is_source(file: Path, pair: list[str]) -> bool:
    """``train.en`` and ``train.en.gz`` hold the sources of the pair ``[en, de]``."""
    return inner_name(file).suffix == f".{pair[0]}"


def inner_name(path: Path) -> Path:
    """The name without the ending that stands for a compression."""
    return path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path


def visible(file: Path, root: Path) -> bool:
    """No part below ``root`` starts with a dot."""
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def split_word(name: str) -> str | None:
    """The split that one of the words of ``name`` stands for: ``wiki-valid-00001`` is validation."""
    for word in re.split(r"[^a-z]+", name.lower()):
        if word in SPLIT_WORDS:
            return SPLIT_WORDS[word]
    return None


def split_of(file: Path, entry: str) -> str:
    """``train``, ``validation`` or ``test`` by the words of the file's name or its folder; train if none says.

    The folder counts only below what the user named: with ``data/test/a.txt`` or ``/home/dev`` nobody meant a split.
    """
    given = Path(entry).expanduser()
    magic = [place for place, part in enumerate(given.parts) if glob.has_magic(part)]
    if given.is_dir():
        below = file.parts[len(given.parts) : -1]
    else:
        below = file.parts[magic[0] : -1] if magic and not given.is_file() else ()
    for name in [inner_name(file).stem, *below[-1:]]:
        if (split := split_word(name)) is not None:
            return split
    return "train"


def fingerprint(groups: Groups) -> str:
    """Changes when files are added, removed, renamed or edited; reads only their ends."""
    digest = hashlib.sha256()
    for split, paths in groups.items():
        for path in paths:
            size = path.stat().st_size
            digest.update(f"{split}|{path.name}|{size}|".encode())
            with path.open("rb") as stream:
                digest.update(stream.read(65536))
                stream.seek(max(size - 65536, 0))
                digest.update(stream.read(65536))
    return digest.hexdigest()
