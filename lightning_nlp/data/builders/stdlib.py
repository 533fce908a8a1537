"""Walks the documentation strings of the standard library. Source files are parsed, never imported or run."""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import inspect
import json
import os
import shutil
import sysconfig
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lightning_nlp.errors import ConfigError

SKIPPED = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "__pycache__",
    "idle_test",
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """``(dotted name, syntax tree)`` of every standard-library module that parses, in a fixed order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        if SKIPPED.isdisjoint(parts):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # invalid escapes in somebody else's source
                    tree = ast.parse(file.read_bytes())
            except (SyntaxError, ValueError):
                continue
            yield ".".join(part for part in parts if part != "__init__"), tree


def docstrings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """``(kind and name, cleaned text)`` of the module, its classes and functions, from top to bottom."""

    def visit(node: Any, prefix: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                name = f"{prefix}{child.name}"
                if text := ast.get_docstring(child):
                    yield name, inspect.cleandoc(text).strip()
                yield from visit(child, f"{name}.")

    if text := ast.get_docstring(tree):
        yield "", inspect.cleandoc(text).strip()
    yield from visit(tree, "")


def split_by_name(name: str) -> str:
    """90 % train, 5 % validation, 5 % test, by a hash of the name: stable when others come or go."""
    place = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64
    return "test" if place < 0.05 else "validation" if place < 0.10 else "train"


def write(directory: Path, splits: dict[str, list[dict[str, Any]]], about: dict[str, Any]) -> dict[str, Any]:
    """Write ``{split}.jsonl`` and ``info.json``: all of them, or none.

    Several processes may do so at once: the directory is always a whole one.

    Returns:
        What stands in ``info.json``, with the number of rows of each split.

    Raises:
        ConfigError: the directory holds something else, which is not ours to replace.
    """
    if directory.is_dir() and any(directory.iterdir()) and not (directory / "info.json").is_file():
        raise ConfigError(f"'{directory}' holds something that is no sample corpus: move it away")
    directory.parent.mkdir(parents=True, exist_ok=True)
    old = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for split, rows in splits.items():
            with (work / f"{split}.jsonl").open("w", encoding="utf-8") as stream:
                stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        about = {**about, "rows": {split: len(rows) for split, rows in splits.items()}}
        (work / "info.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        work.chmod(0o755)
        with contextlib.suppress(FileNotFoundError):
            os.replace(directory, old)
        try:
            os.replace(work, directory)
        except OSError as error:  # another process was faster, with the same content
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return about


def grouped(rows: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by split."""
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "validation": [], "test": []}
    for split, row in rows:
        splits[split].append(row)
    return splits
