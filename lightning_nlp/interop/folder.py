"""A folder as Hugging Face libraries write it: ``config.json``, weights in safetensors, ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run.files import write_json, write_text

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def is_folder(path: Path) -> bool:
    """A directory with a ``config.json`` that names its kind of model."""
    return (path / "config.json").is_file()


def read_settings(folder: Path) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        ConfigError: absent, no JSON, or without ``model_type``.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise ConfigError(f"'{folder}' has no config.json: it is no Hugging Face folder")
    try:
        settings = json.loads(file.read_text())
    except ValueError as error:
        raise ConfigError(f"'{file}' is no JSON: {error}") from error
    if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
        raise ConfigError(f"'{file}' does not say its model_type")
    return settings


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder; safetensors before pickles, which are read as plain data only.

    Raises:
        ConfigError: there are none.
        CheckpointError: a file that is missing, damaged, or holds code.
    """
    for single, index in ((SAFE, SAFE_INDEX), (PICKLED, PICKLED_INDEX)):
        if (folder / single).is_file():
            return read_file(folder / single)
        if (folder / index).is_file():
            return read_shards(folder, index)
    raise ConfigError(f"'{folder}' has no weights: neither {SAFE} nor {PICKLED}")


def read_shards(folder: Path, index: str) -> dict[str, Tensor]:
    """Tensors spread over several files."""
    try:
        places = json.loads((folder / index).read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"'{folder / index}' is no index of weights: {error!r}") from error
    found: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"'{folder / index}' names '{name}', which is not in the folder")
        found |= read_file(folder / name)
    if missing := [name for name in places if name not in found]:
        raise CheckpointError(f"'{folder / index}' names {missing[0]}, which is in none of its files")
    return found


def read_file(file: Path) -> dict[str, Tensor]:
    """Tensors of one file.

    Raises:
        CheckpointError: damaged, or a pickle that holds more than plain data.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, Exception) as error:  # each library raises several kinds, which all mean the same here
        raise CheckpointError(f"cannot read {file}: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{file} holds no tensors by name")
    return found


def other_special_tokens(folder: Path, ours: dict[str, str]) -> list[str]:
    """A line for every start, end or padding token that ``tokenizer_config.json`` names and we would not use.

    Args:
        ours: ``{"eos": "</s>", ...}``.
    """
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text())
    except (OSError, ValueError):  # it is a help, not a part of the model
        return []
    lines = []
    for name in ("bos", "eos", "pad"):
        theirs = settings.get(f"{name}_token")
        theirs = theirs.get("content") if isinstance(theirs, dict) else theirs
        if theirs is not None and theirs != ours.get(name):
            instead = f"here it is {ours[name]!r}" if name in ours else "here it is not known as one"
            lines.append(f"the folder's {name} token is {theirs!r}; {instead}")
    return lines


def write_folder(
    folder: Path,
    settings: dict[str, Any],
    weights: dict[str, Tensor],
    tokenizer: str | None,
    special: dict[str, str],
    max_length: int,
) -> None:
    """Write a folder that ``from_pretrained`` reads.

    Args:
        tokenizer: content of ``tokenizer.json``.
        special: ``{"pad": "<pad>", ...}``, for ``tokenizer_config.json``.
        max_length: tokens the model takes.

    Raises:
        ConfigError: the directory exists and is not empty.
    """
    check_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", settings)
    save_file(weights, folder / SAFE, metadata={"format": "pt"})
    if tokenizer is not None:
        write_text(folder / "tokenizer.json", tokenizer)
        named = {f"{name}_token": token for name, token in special.items()}
        kind = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_length}
        write_json(folder / "tokenizer_config.json", {**kind, **named})


def check_empty(folder: Path) -> None:
    """Refuse to write among other files.

    Raises:
        ConfigError: the directory exists and is not empty, or is a file.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise ConfigError(f"'{folder}' exists already: name an output that does not")
