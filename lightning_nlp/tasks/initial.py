"""Starting from other weights (`--init_from`): their architecture and tokenizer win, the rest of the run is new."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run import manifest

FREE = frozenset({"size", "dropout", "init_std"})
"""Backbone settings that are not part of the architecture: a run that starts or goes on from weights has its own."""


@dataclass
class InitialWeights:
    """Weights, architecture and tokenizer of an earlier run."""

    source: Path
    backbone: dict[str, Any]
    state: dict[str, Any]
    tokenizer: Path | None

    @classmethod
    def open(cls, path: str | Path) -> InitialWeights:
        """Read a run directory (its best checkpoint, else its last) or a checkpoint file.

        Raises:
            ConfigError: nothing is there, or it holds no weights.
        """
        source = Path(path)
        if not source.exists():
            raise ConfigError(f"--init_from '{source}' does not exist")
        file, run = source, source.parent.parent
        if source.is_dir():
            run = source
            found = newest_or_best(source)
            if found is None:
                raise ConfigError(f"--init_from '{source}' has no checkpoint to take weights from")
            file = found.path
        checkpoint = read_checkpoint(file)
        if "backbone" not in checkpoint.get("hyper_parameters", {}):
            raise ConfigError(f"--init_from '{file}' is no checkpoint of this package: it does not name its backbone")
        tokenizer = run / "tokenizer.json"
        return cls(
            file,
            checkpoint["hyper_parameters"]["backbone"],
            checkpoint["state_dict"],
            tokenizer if tokenizer.is_file() else None,
        )

    def merge(self, config: TransformerConfig) -> TransformerConfig:
        """The saved architecture with ``config``'s training-time settings.

        Raises:
            ConfigError: ``config`` was given a value that disagrees; names the key.
        """
        for key, value in config.given.items():
            if key not in FREE and self.backbone.get(key, value) != value:
                raise ConfigError(f"backbone.{key} is {value!r}, but --init_from has {self.backbone[key]!r}")
        free = {key: getattr(config, key) for key in FREE}
        return TransformerConfig(**{**self.backbone, **free})

    def load_into(self, module: nn.Module) -> None:
        """Copy every weight whose name the module has; report what stays new.

        Raises:
            CheckpointError: the backbone does not fit.
        """
        ours = module.state_dict()
        fitting = {
            name: value for name, value in self.state.items() if name in ours and ours[name].shape == value.shape
        }
        missing = [name for name in ours if name.startswith("backbone.") and name not in fitting]
        if missing:
            raise CheckpointError(f"--init_from {self.source} does not fit the backbone: {', '.join(missing[:3])} ...")
        module.load_state_dict(fitting, strict=False)
        new = [name for name in ours if name not in fitting]
        unused = [name for name in self.state if name not in fitting]
        print(
            f"init_from {self.source}: {len(fitting)} tensors loaded"
            + (f", new: {', '.join(new[:4])}" if new else "")
            + (f", not used: {', '.join(unused[:4])}" if unused else ""),
            file=sys.stderr,
        )


def newest_or_best(run: Path) -> manifest.Checkpoint | None:
    """The run's best checkpoint by its own monitor, else its newest."""
    directory = run / "checkpoints"
    known = manifest.published(directory)
    if not known:
        return None
    monitor = known[-1].manifest.get("monitor") or {"name": "val/loss", "mode": "min"}
    return manifest.best(directory, monitor["name"], monitor["mode"], lambda line: print(line, file=sys.stderr))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint file as plain data; code hidden in it is refused, not run.

    Raises:
        CheckpointError: unreadable, or holding anything but plain data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint; all mean the same here
        raise CheckpointError(f"cannot read {path}: {str(error).splitlines()[0]}") from error
