"""Reading ``.gz`` and ``.zst`` files as what is inside them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import BinaryIO

from lightning_nlp.data.sources.cache import cached
from lightning_nlp.data.sources.files import COMPRESSIONS


def open_bytes(path: Path, offset: int = 0) -> BinaryIO:
    """What is inside a file, from byte ``offset`` on; a compressed one is read up to there.

    Raises:
        OSError: it cannot be read, or is no such file.
    """
    codec = COMPRESSIONS.get(path.suffix.lower())
    if codec is None:
        stream = path.open("rb")
        stream.seek(offset)
        return stream
    import pyarrow

    inside = io.BufferedReader(pyarrow.input_stream(str(path), compression=codec), 1 << 16)  # type: ignore[type-var]
    while offset:
        passed = inside.read(min(offset, 1 << 20))
        if not passed:
            raise OSError(f"{path} is shorter than it was")
        offset -= len(passed)
    return inside  # type: ignore[return-value]


def unpacked(path: Path) -> Path:
    """A plain copy, made once; the file itself where it is not compressed."""
    if path.suffix.lower() not in COMPRESSIONS:
        return path

    def make(stream: BinaryIO) -> None:
        with open_bytes(path) as inside:
            shutil.copyfileobj(inside, stream, 1 << 20)

    return cached(path, "unpacked", make)
