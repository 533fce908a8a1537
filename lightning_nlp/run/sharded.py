"""Checkpoints that are directories: every process writes its part, any number of processes reads it back.

Tensors are in the files of ``torch.distributed.checkpoint``; everything else, and the shape of every tensor, is in
``meta.pt``, plain data. The library's own index is a pickle: it is read by an unpickler that knows the few classes of
an index and refuses everything else.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import FileSystemReader, FileSystemWriter, Metadata
from torch.distributed.checkpoint.api import CheckpointException

from lightning_nlp.errors import CheckpointError

OUTLINE, INDEX = "meta.pt", ".metadata"
PLACE = "sharded_checkpoint"
"""Key of an outline under which its directory stands."""
SAFE = {
    "torch": {"Size", *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype))},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
}
"""What an index is made of, by module; and paths, whose module has another name in every Python."""


def is_sharded(path: Path) -> bool:
    """True for a directory of parts."""
    return path.is_dir() and (path / OUTLINE).is_file()


def tensors_of(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Flat names of the tensors that are written in parts: weights and the state of optimizers."""
    found = {f"state_dict.{name}": value for name, value in checkpoint.get("state_dict", {}).items()}
    for number, optimizer in enumerate(checkpoint.get("optimizer_states", [])):
        for index, values in optimizer["state"].items():
            found |= {f"optimizer_states.{number}.{index}.{key}": value for key, value in values.items()}
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def hollow(value: Any) -> Any:
    """The shape of a tensor, as one without values."""
    return torch.empty(value.shape, dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value


def save(checkpoint: dict[str, Any], path: Path, first: bool, group: Any = None) -> None:
    """Write this process's part; ``first`` also writes the outline. All processes must call this."""
    path.mkdir(parents=True, exist_ok=True)
    tensors = tensors_of(checkpoint)
    if first:
        torch.save(outlined(checkpoint), path / OUTLINE)
    writer = FileSystemWriter(path, single_file_per_rank=True, sync_files=False)  # flushed when it is published
    try:
        dcp.save(tensors, storage_writer=writer, process_group=group)
    except CheckpointException as error:
        (cause, _), *_ = error.failures.values()
        raise CheckpointError(f"cannot write {path}: {first_line(cause)}") from error


def outlined(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint with hollow tensors where :func:`tensors_of` finds full ones."""
    outline = dict(checkpoint)
    outline["state_dict"] = {
        name: (list(value.shape), value.dtype) for name, value in checkpoint.get("state_dict", {}).items()
    }
    outline["optimizer_states"] = [
        {
            **optimizer,
            "state": {
                index: {
                    key: {"shape": list(value.shape), "dtype": value.dtype} if isinstance(value, Tensor) else value
                    for key, value in values.items()
                }
                for index, values in optimizer["state"].items()
            },
        }
        for optimizer in checkpoint.get("optimizer_states", [])
    ]
    return outline


def outline(path: Path) -> dict[str, Any]:
    """A sharded checkpoint with hollow tensors; their values are at ``checkpoint[PLACE]``.

    Raises:
        CheckpointError: unreadable.
    """
    try:
        found = dict(torch.load(path / OUTLINE, weights_only=True))
    except Exception as error:  # torch raises many kinds for a file that is none of its own; all mean the same here
        raise CheckpointError(f"cannot read {path / OUTLINE}: {first_line(error)}") from error
    found["state_dict"] = {
        name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in found["state_dict"].items()
    }
    for optimizer in found["optimizer_states"]:
        for values in optimizer["state"].values():
            for key, value in values.items():
                if isinstance(value, dict) and value.keys() == {"shape", "dtype"}:
                    values[key] = torch.empty(value["shape"], dtype=value["dtype"], device="meta")
    return {**found, PLACE: path}


class IndexUnpickler(pickle.Unpickler):
    """Finds the classes of an index, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "PosixPath" and module.partition(".")[0] == "pathlib":
            return PurePosixPath
        if name in SAFE.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"an index has no business with {module}.{name}")


class Reader(FileSystemReader):
    """The library's, with an index that cannot run code."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        path = Path(self.path) / INDEX
        try:
            with path.open("rb") as stream:
                found = IndexUnpickler(stream).load()
        except Exception as error:
            raise CheckpointError(f"cannot read {path}: {first_line(error)}") from error
        if getattr(found, "storage_meta", None) is None:
            found.storage_meta = dcp.metadata.StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


def load_into(tensors: dict[str, Any], path: Path, alone: bool = False) -> None:
    """Fill tensors, or this process's parts of DTensors, with what the directory has under their names.

    Args:
        alone: no other process reads now.

    Raises:
        CheckpointError: unreadable, or something is missing.
    """
    alone = alone or not (dist.is_available() and dist.is_initialized())
    try:
        with warnings.catch_warnings():  # it would say that a single process was meant
            warnings.simplefilter("ignore")
            dcp.load(tensors, storage_reader=Reader(path), no_dist=alone)
    except (Exception, CheckpointException) as error:  # the library's own is no Exception
        causes = [cause for cause, _ in error.failures.values()] if isinstance(error, CheckpointException) else [error]
        if isinstance(causes[0], CheckpointError):
            raise causes[0] from None
        raise CheckpointError(f"cannot read {path}: {first_line(causes[0])}") from error


def first_line(error: BaseException) -> str:
    """What an error says first, or what it is."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def read(path: Path) -> dict[str, Any]:
    """The whole checkpoint in the form of a single file, read by this process alone.

    Raises:
        CheckpointError: unreadable.
    """
    found = outline(path)
    tensors = {name: torch.empty_like(value, device="cpu") for name, value in tensors_of(found).items()}
    load_into(tensors, path, alone=True)
    found["state_dict"] = {name: tensors[f"state_dict.{name}"] for name in found["state_dict"]}
    for number, optimizer in enumerate(found["optimizer_states"]):
        for index, values in optimizer["state"].items():
            for key in values:
                values[key] = tensors.get(f"optimizer_states.{number}.{index}.{key}", values[key])
    del found[PLACE]
    return found
