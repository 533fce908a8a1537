"""Starting from other weights (`--init_from`): their architecture and tokenizer win, the rest of the run is new."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from lightning_nlp.backbone.adapters import AdapterConfig, folded_state, is_adapter
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.interop import convert
from lightning_nlp.interop.folder import is_folder
from lightning_nlp.run.choice import choose
from lightning_nlp.run.weights import read

FREE = frozenset({"size", "dropout", "init_std", "position_shift"})
"""Backbone settings that are not part of the architecture: a run that starts or goes on from weights has its own."""


@dataclass
class InitialWeights:
    """Weights, architecture and tokenizer of an earlier run."""

    source: Path
    backbone: dict[str, Any]
    state: dict[str, Any]
    tokenizer: Path | None
    adapter: AdapterConfig = field(default_factory=AdapterConfig)

    @classmethod
    def open(cls, path: str | Path) -> InitialWeights:
        """Read a run directory (its best checkpoint, else its last), a checkpoint file or a Hugging Face folder.

        Raises:
            ConfigError: nothing is there, or it holds no weights.
            CheckpointError: what is there is damaged.
        """
        source = Path(path)
        if not source.exists():
            raise ConfigError(f"--init_from '{source}' does not exist")
        if is_folder(source):
            found = convert.read(source)
            return cls(source, found.config.to_dict(), dict(found.state), found.tokenizer)
        file, run = source, source.parent.parent
        if source.is_dir():
            run = source
            best = choose(source / "checkpoints", "best", lambda line: print(line, file=sys.stderr))
            if best is None:
                raise ConfigError(f"--init_from '{source}' has no checkpoint to take weights from")
            file = best.newest.path
        checkpoint = read(file.with_name(f"{file.name}@auto"))
        if "backbone" not in checkpoint.get("hyper_parameters", {}):
            raise ConfigError(f"--init_from '{file}' is no checkpoint of this package: it does not name its backbone")
        tokenizer = run / "tokenizer.json"
        return cls(
            file,
            checkpoint["hyper_parameters"]["backbone"],
            checkpoint["state_dict"],
            tokenizer if tokenizer.is_file() else None,
            AdapterConfig(**checkpoint["hyper_parameters"].get("adapter", {})),
        )

    def merge(self, config: TransformerConfig) -> TransformerConfig:
        """The saved architecture with ``config``'s training-time settings.

        Raises:
            ConfigError: ``config`` was given a value that disagrees; names the key.
        """
        plain = config.to_dict()
        for key in config.given:
            value = plain[key]
            if key not in FREE and self.backbone.get(key, value) != value:
                raise ConfigError(f"backbone.{key} is {value!r}, but --init_from has {self.backbone[key]!r}")
        free = {key: getattr(config, key) for key in FREE}
        return TransformerConfig(**{**self.backbone, **free})

    def load_into(self, module: nn.Module, adapter: AdapterConfig = AdapterConfig()) -> None:  # noqa: B008 - frozen
        """Copy every weight whose name the module has; report what stays new.

        Weights of an adapted run go on with the same adapter; for any other, LoRA is merged into them first.

        Args:
            adapter: the adapters that ``module`` has.

        Raises:
            CheckpointError: the backbone does not fit.
            ConfigError: the weights have bottleneck adapters, which ``module`` has not and nothing can merge.
        """
        state = self.unadapted(adapter)
        ours = module.state_dict()
        fitting = {name: value for name, value in state.items() if name in ours and ours[name].shape == value.shape}
        new = [name for name in ours if name not in fitting]
        missing = [name for name in new if name.startswith("backbone.") and not is_adapter(name)]
        if missing:
            raise CheckpointError(f"--init_from {self.source} does not fit the backbone: {', '.join(missing[:3])} ...")
        module.load_state_dict(fitting, strict=False)
        said = f"init_from {self.source}: {len(fitting)} tensors loaded"
        for what, names in (("new", new), ("not used", [name for name in state if name not in fitting])):
            said += f", {what}: {listed(names)}" if names else ""
        say(said)

    def unadapted(self, adapter: AdapterConfig) -> dict[str, Any]:
        """The weights for a module with ``adapter``: as they are where they have the same, else with theirs merged."""
        if self.adapter.kind == "none" or not self.adapter.differences(adapter):
            return self.state
        if self.adapter.kind != "lora":
            raise ConfigError(
                f"--init_from {self.source} has {self.adapter.kind} adapters, which cannot be merged into its weights: "
                "give model.adapter the same values, or take the weights of its base"
            )
        say(f"init_from {self.source}: its lora adapter is merged into its weights")
        return folded_state(self.state, self.adapter, TransformerConfig(**self.backbone))


@rank_zero_only
def say(text: str) -> None:
    """One line for the user, from the first rank alone."""
    print(text, file=sys.stderr)


def listed(names: list[str]) -> str:
    """The first names, without those of adapters, which are counted."""
    adapters = sum(map(is_adapter, names))
    rest = [name for name in names if not is_adapter(name)]
    shown = [*rest[:4], *([f"{len(rest) - 4} more"] if len(rest) > 4 else [])]
    return ", ".join([*shown, *([f"{adapters} adapter tensors"] if adapters else [])])
