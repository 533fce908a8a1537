"""Making a prepared set: units of consecutive rows, tokenised by several processes, each finished for good by itself.

A unit's shards are on the disk under their names before its record is; the manifest comes last. What was killed goes on
from the finished units, whatever the number of processes. The content depends on the source and the tokenizer alone.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from lightning_nlp.data.prepared.encoded import Encoded
from lightning_nlp.data.prepared.process_pool import Submit, pool
from lightning_nlp.data.prepared.sets import (
    FORMAT,
    MANIFEST,
    STAMPS,
    TOKENIZER,
    Identity,
    damage,
    damage_of_file,
    read_manifest,
    records_of,
    stamp,
    write_stamps,
)
from lightning_nlp.data.prepared.shards import BAD, EMPTY, PARTIAL, ShardWriter, id_type
from lightning_nlp.data.sources.bad_rows import FILTERED, FIRST_ROWS, BadRow, located, policy_of
from lightning_nlp.data.sources.source import Source
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import DataError
from lightning_nlp.run.files import fsync_directory, sha256, write_json

FILES = "files.json"
"""What the units are made from, as the source was when they were begun."""
SHARD_TOKENS = 1 << 26
"""Tokens after which a shard is closed: 128 MB of small ids. One document is never cut."""
UNITS = 16
"""Units a middling split is cut into."""
UNIT_BYTES = (4 << 20, 128 << 20)
"""Bytes of text in a unit, at least and at most, as estimated from a sample."""
UNIT_ROWS = 1 << 20
SAMPLE = 64
CHUNK_ROWS, CHUNK_BYTES = 512, 4 << 20
"""Rows tokenised at once, or fewer where they are long."""
Progress = Callable[[str, int, int | None, int], None]
"""Told after every unit: split, its rows done, of how many where known, tokens of all splits so far."""


@dataclass(frozen=True)
class Job:
    """What is prepared.

    Attributes:
        folder: of the set.
        identity: what fixes its content.
        splits: the rows.
        tokenizer: for their texts.
    """

    folder: Path
    identity: Identity
    splits: dict[str, Source]
    tokenizer: Tokenizer

    @property
    def units(self) -> Path:
        return self.folder / "units"

    def unit(self, split: str, number: int) -> Path:
        """The record of a unit."""
        return self.units / f"{split}-{number:05d}.json"


def prepare_set(
    job: Job, described: list[dict[str, Any]], about: dict[str, Any], *, workers: int, progress: Progress
) -> dict[str, Any]:
    """Make a set, or what is missing or damaged of it.

    Args:
        job: what to prepare.
        described: files of the source, where they are local.
        about: more for the manifest.
        workers: processes that tokenise.
        progress: told how far it is.

    Returns:
        The manifest.

    Raises:
        DataError: rows or files that cannot be read or written, or another process at work on the same set.
    """
    try:
        job.units.mkdir(parents=True, exist_ok=True)
        with alone(job.folder):
            sweep(job.folder)
            if not same_files(job.folder, described):
                for unit in job.units.iterdir():
                    unit.unlink()
                (job.folder / MANIFEST).unlink(missing_ok=True)
                write_json(job.folder / FILES, described)
            finished = read_manifest(job.folder)
            if finished is not None and damage(job.folder, finished, thorough=True) is None:
                finished["files"] = described
                write_json(job.folder / MANIFEST, finished)
                return finished
            (job.folder / MANIFEST).unlink(missing_ok=True)
            (job.folder / STAMPS).unlink(missing_ok=True)
            job.tokenizer.save(job.folder / TOKENIZER)
            splits = build(job, workers, progress)
            manifest = {
                "format": FORMAT,
                **about,
                "made": time.time(),
                "identity": asdict(job.identity),
                "tokenizer": job.tokenizer.hash,
                "tokenizer_file": describe(job.folder / TOKENIZER),
                "vocab_size": job.tokenizer.vocab_size,
                "dtype": id_type(job.tokenizer.vocab_size).str,
                "files": described,
                "splits": splits,
            }
            names = [name for record in records_of(manifest) for name in record["files"]]
            write_stamps(job.folder, {name: stamp(job.folder / name) for name in [*names, TOKENIZER]})
            write_json(job.folder / MANIFEST, manifest)
            fsync_directory(job.folder)
            return manifest
    except OSError as error:
        raise DataError(f"cannot write '{job.folder}': {error.strerror or error}") from error


def same_files(folder: Path, described: list[dict[str, Any]]) -> bool:
    """Whether what stands in the folder was made from files of the same content."""
    try:
        before = json.loads((folder / FILES).read_text(encoding="utf-8"))
        return [[file["name"], file["sha256"]] for file in before] == [[f["name"], f["sha256"]] for f in described]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def describe(path: Path) -> dict[str, Any]:
    return {"sha256": sha256(path), "bytes": path.stat().st_size}


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others out of a set while it is made.

    Raises:
        DataError: somebody is in there.
    """
    with (folder / ".lock").open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another process is preparing '{folder}'") from error
        yield


def sweep(folder: Path) -> None:
    """Delete what a killed process left half-written."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink()


def build(job: Job, workers: int, progress: Progress) -> dict[str, Any]:
    """All units that are not finished yet; per split ``{"name", "stream", "rows", "shards"}``."""
    found: dict[str, Any] = {}
    tokens = 0
    with pool(partial(build_unit, job), workers) as submit:
        for split, source in job.splits.items():
            records: dict[int, dict[str, Any]] = {}
            rows = 0
            for number, record in units(job, split, source, submit, 2 * workers):
                records[number] = record
                rows += record["rows"]
                tokens += sum(sum(shard["tokens"].values()) for shard in record["shards"])
                progress(split, rows, source.num_rows, tokens)
            bad = sum(shard["bad"] for record in records.values() for shard in record["shards"])
            policy_of(source).check_budget(bad, rows, source.name)
            shards = [shard for number in sorted(records) for shard in records[number]["shards"]]
            about = {"name": source.name, "stream": source.num_rows is None, "rows": rows}
            found[split] = {**about, "shards": shards}
    return found


Rows = list[dict[str, Any]]


def units(job: Job, split: str, source: Source, submit: Submit, ahead: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Records of all units of a split, as they are finished; no more than ``ahead`` are under way."""
    size = unit_rows(source, job.identity.texts)
    waiting: dict[Future[dict[str, Any]], int] = {}
    for number, first, rows, content in plan(job, split, source, size):
        record = finished_unit(job, split, number, first, rows)
        if record is not None:
            yield number, record
            continue
        waiting[submit(split, number, first, rows, content)] = number
        while len(waiting) >= ahead:
            yield from harvest(waiting)
    while waiting:
        yield from harvest(waiting)


def harvest(waiting: dict[Future[dict[str, Any]], int]) -> list[tuple[int, dict[str, Any]]]:
    """Those that are done, of which there is at least one."""
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    return [(waiting.pop(future), future.result()) for future in done]


def plan(job: Job, split: str, source: Source, size: int) -> Iterator[tuple[int, int, int, Rows | None]]:
    """``(number, first row, rows, the rows themselves)`` of every unit; the rows only where they come in a stream."""
    if source.num_rows is not None:
        for number, first in enumerate(range(0, source.num_rows, size)):
            yield number, first, min(size, source.num_rows - first), None
        return
    number = 0
    while finished_unit(job, split, number, number * size, size) is not None:
        yield number, number * size, size, None
        number += 1
    rows = source.scan(number * size)
    while content := list(islice(rows, size)):
        yield number, number * size, len(content), content
        number += 1


def unit_rows(source: Source, texts: list[str]) -> int:
    """Rows of a unit: a function of the source alone, so that what was begun with other workers can be gone on with."""
    if source.num_rows is None:
        sample = list(islice(source.scan(0), SAMPLE))
    else:
        sample = source.read(np.unique(np.linspace(0, source.num_rows - 1, SAMPLE).astype(np.int64)))
    size = max(sum(text_bytes(row, texts) for row in sample) / max(len(sample), 1), 1.0)
    least, most = UNIT_BYTES
    wanted = most if source.num_rows is None else size * source.num_rows / UNITS
    return max(min(int(min(max(wanted, least), most) / size), UNIT_ROWS), 1)


def text_bytes(row: dict[str, Any], texts: list[str]) -> int:
    """About the bytes of a row's texts."""
    return sum(len(row.get(field, "")) for field in texts)


def finished_unit(job: Job, split: str, number: int, first: int, rows: int) -> dict[str, Any] | None:
    """The record of a unit all of whose shards are as they were written; None where it must be made."""
    try:
        record = json.loads(job.unit(split, number).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if [record["first"], record["rows"], record["tokenizer"]] != [first, rows, job.tokenizer.hash]:
        return None
    for shard in record["shards"]:
        for name, about in shard["files"].items():
            if damage_of_file(job.folder / name, about, None) is not None:
                return None
    return dict(record)


# In a worker --------------------------------------------------------------------------------------------------


def build_unit(
    job: Job, split: str, number: int, first: int, rows: int, content: list[dict[str, Any]] | None
) -> dict[str, Any]:
    """Write the shards of one unit, and then its record."""
    source, identity = job.splits[split], job.identity
    others = [field for field in identity.columns if field not in identity.texts]
    shards: list[dict[str, Any]] = []
    writer: ShardWriter | None = None
    at = first
    for chunk in chunks(source, first, rows, content, identity.texts):
        if writer is None:
            writer = ShardWriter(
                job.folder,
                f"{split}-{number:05d}-{len(shards)}",
                at,
                texts=identity.texts,
                others=others,
                dtype=id_type(job.tokenizer.vocab_size),
                words=identity.words,
            )
        writer.add(*encoded(job, source, chunk, at))
        at += len(chunk)
        if writer.tokens >= SHARD_TOKENS:
            shards.append(writer.close())
            writer = None
    if writer is not None:
        shards.append(writer.close())
    fsync_directory(job.folder)
    record = {"first": first, "rows": rows, "tokenizer": job.tokenizer.hash, "shards": shards}
    write_json(job.unit(split, number), record)
    return record


def chunks(
    source: Source, first: int, rows: int, content: list[dict[str, Any]] | None, texts: list[str]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of a unit, a few at a time: fewer where they are long."""
    at, count = 0, 8
    while at < rows:
        stop = min(at + count, rows)
        chunk = source.read(np.arange(first + at, first + stop)) if content is None else content[at:stop]
        yield chunk
        size = sum(text_bytes(row, texts) for row in chunk) / len(chunk)
        at, count = stop, max(min(int(CHUNK_BYTES / max(size, 1.0)), 4 * count, CHUNK_ROWS), 1)


def encoded(job: Job, source: Source, rows: Rows, first: int) -> tuple[Rows, dict[str, list[Encoded]]]:
    """The rows from number ``first`` on, and their texts' tokens. What cannot be tokenised is a bad row from then on.

    Raises:
        DataError: a row is bad, and would stop every run.
    """
    texts = job.identity.texts
    good = [row for row in rows if BAD not in row]
    try:
        found = {field: encode(job, [row[field] for row in good]) for field in texts}
    except DataError:
        rows = [row if BAD in row or (bad := refusal(job, row)) is None else {**row, BAD: bad} for row in rows]
        good = [row for row in rows if BAD not in row]
        found = {field: encode(job, [row[field] for row in good]) for field in texts}
    policy = policy_of(source).policy
    for place, row in enumerate(rows, first):
        stops = policy == "error" or (policy == "auto" and place < FIRST_ROWS)
        if stops and BAD in row and row[BAD].kind != FILTERED:
            raise DataError(located(source, row, row[BAD]))
    parts = {field: iter(values) for field, values in found.items()}
    return rows, {field: [EMPTY if BAD in row else next(parts[field]) for row in rows] for field in texts}


def refusal(job: Job, row: dict[str, Any]) -> BadRow | None:
    """Why a row cannot be tokenised."""
    try:
        for field in job.identity.texts:
            encode(job, [row[field]])
    except DataError as error:
        return BadRow("unusable", str(error))
    return None


def encode(job: Job, texts: list[str]) -> list[Encoded]:
    """Tokens of texts.

    Raises:
        DataError: one of them has none.
    """
    if not job.identity.words:
        ids_of = job.tokenizer.encode_batch(texts)
        return [Encoded(ids, len(text.encode())) for ids, text in zip(ids_of, texts, strict=True)]
    return [
        Encoded(ids, len(text.encode()), np.diff(words, prepend=-1) != 0)
        for (ids, words), text in zip(job.tokenizer.encode_words(texts), texts, strict=True)
    ]
