"""Rows for training and rows held out, by a stable hash of their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_nlp.data.permutation import share
from lightning_nlp.data.sources.cache import replacing
from lightning_nlp.data.sources.files import data_directory
from lightning_nlp.data.sources.streams import SPLIT_KEY
from lightning_nlp.errors import ConfigError

IN_MEMORY = 4_000_000
"""Rows up to which the numbers of a part are an array in memory; beyond, they lie on disk and are memory-mapped."""


def hash_split(rows: int, fraction: float) -> dict[str, np.ndarray]:
    """Numbers of the rows for training and of those held out for validation, by a stable hash of the number."""
    if rows > IN_MEMORY:
        return split_on_disk(rows, fraction)
    places = share(np.arange(rows), SPLIT_KEY)
    held = places < fraction
    if rows and not held.any():  # a tiny corpus still gets one row to look at
        held[int(places.argmin())] = True
    if rows and held.all():
        held[int(places.argmax())] = False
    return {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held)}


def split_on_disk(rows: int, fraction: float) -> dict[str, np.ndarray]:
    """The same, a piece at a time. The files say nothing of the data: any corpus of so many rows has the same."""
    paths: dict[str, Path] = {
        part: data_directory() / ".cache" / f"{part}-{fraction:.6g}-of-{rows}" for part in ("train", "validation")
    }
    for part, path in paths.items():
        if not path.exists():
            with replacing(path) as stream:
                for first in range(0, rows, IN_MEMORY):
                    numbers = np.arange(first, min(first + IN_MEMORY, rows))
                    held = share(numbers, SPLIT_KEY) < fraction
                    stream.write(numbers[held if part == "validation" else ~held].astype(np.int64).tobytes())
        if not path.stat().st_size:
            raise ConfigError(f"data.validation_fraction {fraction} leaves no rows for {part}")
    return {part: np.memmap(path, np.int64, "r") for part, path in paths.items()}
