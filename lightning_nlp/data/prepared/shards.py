"""Prepared shards on disk: token ids back to back, and an index that is read in place, never loaded.

A shard is a run of consecutive rows of one split. ``NAME.FIELD.bin`` holds the ids of one text field, ``NAME.index``
all columns of the rows: where each document ends, the bytes of its text, its id and its other values. One id more than
there are ends every ``.bin``, so that looking one token ahead needs no care. Documents keep their boundaries and hold
no special tokens, so that every objective can be made from them. What is where in the index is written in the shard's
record, which is plain JSON and part of the manifest.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from lightning_nlp.data.prepared.encoded import Encoded
from lightning_nlp.data.sources.bad_rows import FILTERED, BadRow
from lightning_nlp.errors import DataError

PARTIAL = ".partial"
ALIGNMENT = 8
"""Columns of an index begin at multiples of so many bytes."""
ID, BAD, NUMBER = "id", "bad", "number"
"""Columns beside the fields. Nothing is wrong with a row whose ``bad`` is empty; its number is that in the files."""
EMPTY = Encoded(np.zeros(0, dtype=np.int32), 0, np.zeros(0, dtype=bool))


def id_type(vocab_size: int) -> np.dtype[Any]:
    """The smallest type that holds every token id."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


class HashedFile:
    """A file that gets its name once all of it is on the disk, and knows its checksum."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}{PARTIAL}")
        self._stream: IO[bytes] = self._partial.open("wb")
        self._digest = hashlib.sha256()
        self.size = 0

    def write(self, values: np.ndarray) -> None:
        content = np.ascontiguousarray(values).view(np.uint8).data if values.size else b""
        self._stream.write(content)
        self._digest.update(content)
        self.size += len(content)

    def close(self) -> dict[str, Any]:
        """Publish it; ``{"sha256", "bytes"}``."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        os.replace(self._partial, self.path)
        return {"sha256": self._digest.hexdigest(), "bytes": self.size}


class ShardWriter:
    """Writes one shard.

    Args:
        folder: where it belongs.
        name: of its files.
        first: number of its first row in the split.
        texts: fields that hold text.
        others: the other fields.
        dtype: of token ids.
        words: note which tokens begin a word.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        first: int,
        *,
        texts: Iterable[str],
        others: Iterable[str],
        dtype: np.dtype[Any],
        words: bool,
    ) -> None:
        self.folder, self.name, self.first, self.dtype, self.words = folder, name, first, dtype, words
        self.texts, self.others = list(texts), list(others)
        self.files = {field: HashedFile(folder / f"{name}.{field}.bin") for field in self.texts}
        self.lengths: dict[str, list[int]] = {field: [] for field in self.texts}
        self.sizes: dict[str, list[int]] = {field: [] for field in self.texts}
        self.starts: dict[str, list[np.ndarray]] = {field: [] for field in self.texts}
        self.strings: dict[str, list[bytes]] = {name: [] for name in (ID, BAD, *self.others)}
        self.numbers: list[int] = []
        self.tokens = self.bad = 0

    @property
    def rows(self) -> int:
        return len(self.strings[ID])

    def add(self, rows: list[dict[str, Any]], encoded: dict[str, list[Encoded]]) -> None:
        """The next rows; ``encoded`` has their text fields.

        Raises:
            DataError: a value that JSON cannot hold.
        """
        for field, texts in encoded.items():
            lengths = [len(text.ids) for text in texts]
            self.files[field].write(np.concatenate([text.ids for text in texts]).astype(self.dtype))
            self.lengths[field] += lengths
            self.sizes[field] += [text.bytes for text in texts]
            self.tokens += sum(lengths)
            if self.words:
                self.starts[field] += [text.starts for text in texts if text.starts is not None]
        for row in rows:
            self.strings[ID].append(row[ID].encode("utf-8", "surrogatepass"))
            self.numbers.append(row[NUMBER])
            bad: BadRow | None = row.get(BAD)
            self.bad += bad is not None and bad.kind != FILTERED
            self.strings[BAD].append(b"" if bad is None else json.dumps([bad.kind, bad.reason, bad.line]).encode())
            for field in self.others:
                try:
                    value = json.dumps(row[field]) if field in row else ""
                except TypeError as error:
                    kind = type(row[field]).__name__
                    raise DataError(f"row {row[ID]}: {field} holds {kind}, which shards cannot keep") from error
                self.strings[field].append(value.encode())

    def close(self) -> dict[str, Any]:
        """Finish the shard; its record."""
        columns: dict[str, np.ndarray] = {}
        for field in self.texts:
            columns[f"{field}.ends"] = ends(self.lengths[field])
            columns[f"{field}.bytes"] = smallest(np.array(self.sizes[field], dtype=np.int64))
            if self.words:
                columns[f"{field}.words"] = np.packbits(np.concatenate([np.zeros(0, dtype=bool), *self.starts[field]]))
        for name, values in self.strings.items():
            columns[f"{name}.ends"] = ends([len(value) for value in values])
            columns[f"{name}.text"] = np.frombuffer(b"".join(values), dtype=np.uint8)
        columns[NUMBER] = smallest(np.array(self.numbers, dtype=np.int64))
        index, layout = HashedFile(self.folder / f"{self.name}.index"), {}
        for name, column in columns.items():
            layout[name] = [column.dtype.str, index.size, len(column)]
            index.write(column)
            index.write(np.zeros(-index.size % ALIGNMENT, dtype=np.uint8))
        for file in self.files.values():
            file.write(np.zeros(1, dtype=self.dtype))
        files = {file.path.name: file.close() for file in (*self.files.values(), index)}
        tokens = {field: int(sum(self.lengths[field])) for field in self.texts}
        size = int(sum(map(sum, self.sizes.values())))
        about = {"name": self.name, "first": self.first, "rows": self.rows, "bad": self.bad, "tokens": tokens}
        about["text_bytes"] = size
        return {**about, "files": files, "columns": layout}


def ends(lengths: list[int]) -> np.ndarray:
    """``[0, end of the first, end of the second, ...]``."""
    return smallest(np.concatenate([[0], np.cumsum(np.array(lengths, dtype=np.int64))]).astype(np.int64))


def smallest(values: np.ndarray) -> np.ndarray:
    """Four bytes a value where they suffice."""
    return values.astype(np.uint32) if not len(values) or values.max() < 1 << 32 else values


def mapped(path: Path) -> np.ndarray:
    """The bytes of a file, where they lie."""
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:  # nothing cannot be mapped
            return np.zeros(0, dtype=np.uint8)
        return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)


class Shard:
    """One shard, opened in place.

    Attributes:
        first: number of its first row in the split.
        rows: how many.
        tokens: by text field, ids of all documents.
        ends: by column, ``[rows + 1]``: document ``i`` is ``ends[i]:ends[i + 1]``.
        sizes: by text field, UTF-8 bytes of every document.
        numbers: of the rows in the files.
    """

    def __init__(self, folder: Path, record: dict[str, Any], dtype: str, texts: list[str]) -> None:
        name = record["name"]
        index = mapped(folder / f"{name}.index")
        columns = {
            column: index[start : start + count * np.dtype(kind).itemsize].view(kind)
            for column, (kind, start, count) in record["columns"].items()
        }
        self.first, self.rows, self.texts = int(record["first"]), int(record["rows"]), texts
        self.tokens = {field: mapped(folder / f"{name}.{field}.bin").view(dtype) for field in texts}
        self.ends = {name[:-5]: column for name, column in columns.items() if name.endswith(".ends")}
        self.sizes = {field: columns[f"{field}.bytes"] for field in texts}
        self._words = {field: columns.get(f"{field}.words") for field in texts}
        self._text = {name[:-5]: column.data for name, column in columns.items() if name.endswith(".text")}
        self._ids = columns[f"{ID}.text"]
        self.numbers = columns[NUMBER]
        self._others = [name for name in self._text if name not in (ID, BAD)]

    def string(self, column: str, place: int) -> bytes:
        """Value of row ``place`` of this shard."""
        bounds = self.ends[column]
        return bytes(self._text[column][int(bounds[place]) : int(bounds[place + 1])])

    def id(self, place: int) -> str:
        return self.string(ID, place).decode("utf-8", "surrogatepass")

    def ids(self, places: np.ndarray) -> list[str]:
        """Ids of many rows: their bytes are put together with zeros in between, and decoded at once."""
        bounds = self.ends[ID]
        starts = bounds[places].astype(np.int64)
        sizes = bounds[places + 1] - starts
        stops = np.cumsum(sizes + 1)
        inside = np.arange(int(stops[-1]) if len(stops) else 0)
        content = self._ids.take(inside + np.repeat(starts - stops + sizes + 1, sizes + 1), mode="clip")
        content[stops - 1] = 0
        found = content.tobytes()[:-1].decode("utf-8", "surrogatepass").split("\0")
        return found if len(found) == len(places) else [self.id(place) for place in places.tolist()]

    def encoded(self, field: str, place: int) -> Encoded:
        """A document, copied out."""
        bounds, words = self.ends[field], self._words[field]
        start, stop = int(bounds[place]), int(bounds[place + 1])
        starts = None
        if words is not None:
            bits = np.unpackbits(words[start // 8 : -(-stop // 8)])
            starts = bits[start % 8 : start % 8 + stop - start].astype(bool)
        return Encoded(self.tokens[field][start:stop].astype(np.int32), int(self.sizes[field][place]), starts)

    def row(self, place: int) -> dict[str, Any]:
        """All of row ``place``, with :class:`Encoded` for its texts; a bad row is as its source gave it."""
        row: dict[str, Any] = {ID: self.id(place), NUMBER: int(self.numbers[place])}
        if bad := self.string(BAD, place):
            return {**row, BAD: BadRow(*json.loads(bad))}
        for field in self.texts:
            row[field] = self.encoded(field, place)
        for name in self._others:
            if value := self.string(name, place):
                row[name] = json.loads(value)
        return row
