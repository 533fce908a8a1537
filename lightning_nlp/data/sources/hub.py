"""Datasets of the Hugging Face Hub, and those saved with ``save_to_disk``."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nlp.data.sources.bad_rows import BadRow
from lightning_nlp.data.sources.files import fingerprint, split_word
from lightning_nlp.errors import ConfigError


def quieten() -> None:
    """The library's own progress bars and log lines are not ours to show: what goes wrong is said once, by us."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)


def open_hub(name: str, hub_config: str | None, streaming: bool) -> tuple[dict[str, Any], str]:
    """Open dataset ``name``, a folder or a name on the Hub.

    Returns:
        Its splits by our names, and a fingerprint that says nothing of where they lie.

    Raises:
        ConfigError: it cannot be had, needs code of its own, or has no split we know.
    """
    import datasets

    quieten()
    local = Path(name).is_dir()
    try:
        found = datasets.load_from_disk(name) if local else datasets.load_dataset(name, hub_config, streaming=streaming)
    except Exception as error:  # the library raises a dozen kinds for "not to be had"
        reason = (str(error).splitlines() or [repr(error)])[0].strip("\"'")
        raise ConfigError(f"data.path 'hf:{name}' cannot be opened: {reason}") from error
    if not isinstance(found, dict):
        found = {"train": found}
    splits = {ours: found[theirs] for ours, theirs in name_splits(list(found)).items()}
    if not splits:
        raise ConfigError(f"data.path 'hf:{name}' has no train, validation or test split (it has {', '.join(found)})")
    if local:
        return splits, fingerprint({"saved": sorted(Path(name).rglob("*.arrow"))})
    return splits, hashlib.sha256(f"{name}|{hub_config}|{described(splits)}".encode()).hexdigest()


def name_splits(names: list[str]) -> dict[str, str]:
    """``{our name: theirs}``; an exact name goes before ``validation_matched`` and the like."""
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: (name not in ("train", "validation", "test"), names.index(name))):
        if (ours := split_word(name)) is not None:
            found.setdefault(ours, name)
    order = ("train", "validation", "test")
    return (
        {"train": names[0]} if not found and len(names) == 1 else {ours: found[ours] for ours in order if ours in found}
    )


def described(splits: dict[str, Any]) -> str:
    """Sizes and checksums, as far as they are known without reading."""
    parts = []
    for split, dataset in splits.items():
        rows = len(dataset) if hasattr(dataset, "__len__") else "stream"
        checksums = sorted(getattr(dataset.info, "download_checksums", None) or {})
        parts.append(f"{split} {rows} {dataset.info.version} {checksums}")
    return "; ".join(parts)


class DatasetRows:
    """Rows of a memory-mapped dataset of the ``datasets`` library by number.

    Args:
        dataset: the rows.
        name: of the split.
        wanted: columns to read: decoding those that nobody asked for costs time.
    """

    def __init__(self, dataset: Any, name: str, wanted: tuple[str, ...]) -> None:
        self._dataset = dataset.select_columns([column for column in dataset.column_names if column in wanted])
        self._name = name

    def __len__(self) -> int:
        return len(self._dataset)

    def read(self, numbers: np.ndarray) -> list[Any]:
        """Rows by number; one whose texts cannot be decoded is a ``BadRow``."""
        try:
            batch = self._dataset[numbers.tolist()]
        except UnicodeDecodeError:  # the library does not check texts when it opens them
            if len(numbers) == 1:
                return [BadRow("invalid_utf8", "not UTF-8")]
            return [row for number in numbers for row in self.read(np.array([number]))]
        names = list(batch)
        return [dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)]

    def place(self, number: int, line: int = 0) -> str:
        """Split and number, for a message."""
        return f"{self._name} row {number}"
