"""Local files: finding them, telling format and split from their names, reading them, naming what is wrong."""

from __future__ import annotations

import csv
import glob
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError, DataError, nearest

FORMATS = {
    ".txt": "text",
    ".md": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
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


def find(path: str | list[str], kind: str) -> tuple[Groups, str]:
    """Files behind a path, grouped by split, and their format.

    Args:
        path: file, folder, glob or ``sample:NAME``; or a list of them.
        kind: format, or ``auto``.

    Raises:
        ConfigError: nothing there, or several formats.
    """
    groups: Groups = {}
    formats: set[str] = set()
    for entry in [path] if isinstance(path, str) else path:
        for file in expand(entry, kind):
            groups.setdefault(split_of(file, entry), []).append(file)
            formats.add(FORMATS.get(file.suffix.lower(), "text") if kind == "auto" else kind)
    if not groups:
        raise ConfigError("data.path is empty: give a file, a folder, a glob, hf:NAME or sample:NAME")
    if len(formats) > 1:
        raise ConfigError(f"data.path {path} holds {' and '.join(sorted(formats))} files: set data.format")
    if "train" not in groups and len(groups) == 1:
        groups = {"train": next(iter(groups.values()))}
    return {name: groups[name] for name in ("train", "validation", "test") if name in groups}, formats.pop()


def expand(entry: str, kind: str) -> list[Path]:
    """All data files that one entry of ``data.path`` means."""
    if entry.startswith("sample:"):
        entry = str(sample(entry.removeprefix("sample:")))
    path = Path(entry).expanduser()
    if path.is_file():
        if not os.access(path, os.R_OK):
            raise ConfigError(f"data.path '{path}' cannot be read: permission denied")
        return [path]
    if path.is_dir():
        wanted = {ending for ending, name in FORMATS.items() if kind in ("auto", name)}
        found = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in wanted and visible(file, path)]
        if any(file.suffix != ".json" for file in found):  # info.json and the like beside the data
            found = [file for file in found if file.suffix != ".json"]
        if not found:
            raise ConfigError(f"data.path '{path}' holds no {'data' if kind == 'auto' else kind} files")
        return found
    if glob.has_magic(entry):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        if not found:
            raise ConfigError(f"data.path '{entry}' matches no files")
        return found
    siblings = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
    hint = nearest(path.name, siblings) or " (for the Hugging Face Hub write hf:NAME)"
    raise ConfigError(f"data.path '{entry}' does not exist{hint}")


def visible(file: Path, root: Path) -> bool:
    """No part below ``root`` starts with a dot."""
    return file.is_file() and not any(part.startswith(".") for part in file.relative_to(root).parts)


def split_of(file: Path, entry: str) -> str:
    """``train``, ``validation`` or ``test`` by the words of the file's name or its folder; train if none says."""
    folder = [file.parent.name] if not entry.startswith("sample:") and Path(entry).is_dir() else []
    if folder and file.parent == Path(entry):
        folder = []
    for name in [file.stem, *folder]:
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
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


def quieten() -> None:
    """The library's own progress bars and warnings are not ours to show."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()


def load(groups: Groups, kind: str, text_unit: str, streaming: bool) -> dict[str, Any]:
    """Open files with the ``datasets`` library.

    Raises:
        DataError: empty or malformed; names file and row.
    """
    import datasets

    quieten()
    names = {"text": "text", "jsonl": "json", "csv": "csv", "tsv": "csv", "parquet": "parquet"}
    options: dict[str, Any] = {"sample_by": text_unit} if kind == "text" else {}
    if kind == "tsv":
        options["sep"] = "\t"
    data_files = {}
    for split, paths in groups.items():
        filled = [str(path) for path in paths if path.stat().st_size]
        if not filled:
            raise DataError(f"the {split} data has no rows: {paths[0]} is empty")
        data_files[split] = filled
    try:
        return dict(datasets.load_dataset(names[kind], data_files=data_files, streaming=streaming, **options))
    except Exception as error:  # one of many kinds, with the reason in a cause; we look for the row ourselves
        raise DataError(diagnose(groups, kind) or f"cannot read {kind} data: {root_cause(error)}") from error


def root_cause(error: BaseException) -> str:
    """The first line of the innermost cause."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def diagnose(groups: Groups, kind: str) -> str | None:
    """Find the first row that cannot be read, and say what is wrong with it."""
    for path in (path for paths in groups.values() for path in paths):
        if kind == "parquet":
            import pyarrow.parquet

            try:
                pyarrow.parquet.ParquetFile(path)
            except Exception as error:  # any failure to open is the diagnosis
                return f"{path}: {str(error).splitlines()[0]}"
            continue
        try:
            with path.open(encoding="utf-8", newline="") as stream:
                if kind == "jsonl":
                    for number, line in enumerate(stream, 1):
                        if line.strip() and not isinstance(json.loads(line), dict):
                            return f"{path} row {number}: not a JSON object"
                elif kind in ("csv", "tsv"):
                    reader = csv.reader(stream, delimiter="\t" if kind == "tsv" else ",", strict=True)
                    width = len(next(reader, []))
                    for number, cells in enumerate(reader, 2):
                        if len(cells) != width:
                            return f"{path} row {number}: {len(cells)} cells instead of {width}"
                else:
                    for _ in stream:
                        pass
        except UnicodeDecodeError as error:
            return f"{path}: invalid UTF-8 at byte {error.start}"
        except json.JSONDecodeError as error:
            return f"{path} row {number}: malformed JSON ({error.msg})"
        except csv.Error as error:
            return f"{path} row {reader.line_num}: malformed CSV ({error})"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
    return None
