"""Files that follow from the data and can be made again: offsets, unpacked and converted copies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from lightning_nlp.data.sources.files import data_directory


def cached(path: Path, what: str, make: Callable[[BinaryIO], None]) -> Path:
    """A file derived from ``path``, made unless it is there.

    Args:
        path: what it is made of: place, size and time of change are part of its name.
        what: how it is made, a part of its name too.
        make: writes it; several processes may do so at once, one of them wins.
    """
    found = place_of(path, what)
    if not found.exists():
        with replacing(found) as stream:
            make(stream)
    return found


def place_of(path: Path, what: str) -> Path:
    """Where a file derived from ``path`` lies."""
    status = path.stat()
    key = f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{what}"
    name = f"{path.name[:60]}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    return data_directory() / ".cache" / name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
