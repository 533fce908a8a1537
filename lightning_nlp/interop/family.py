"""What a family of models of another library says about itself: its configuration and its table of names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.errors import CheckpointError, ConfigError, nearest
from lightning_nlp.interop.weights import State, Weight

Settings = dict[str, Any]
"""The content of a ``config.json``."""

INDIFFERENT = ("size", "dropout", "position_shift", "init", "init_std", "mup_base_width", "pad_id", "decoder_start_id")
"""Fields of ours that another library's configuration may say otherwise, or not at all, without another function."""


class Family(ABC):
    """Base of all families.

    A family can express one of our configurations exactly when reading what it wrote gives the same configuration
    back: :func:`differences` relies on this, so ``write`` need not check anything.
    """

    model_type: ClassVar[str]
    architecture: ClassVar[str]
    """The class of the other library that has the head we write."""
    task: ClassVar[str]
    head: ClassVar[str]
    """Name of the task's head, which owns the output layer."""
    prefix: ClassVar[str] = ""
    """Of the weights of models that have a head; bare models lack it."""
    ignored: ClassVar[tuple[str, ...]] = ()
    """Regular expressions of tensors that carry nothing of ours."""
    second_names: ClassVar[dict[str, str]] = {}
    """Names under which a shared tensor may be in a file again, or alone, and the name it has in the table."""
    output_matrix: ClassVar[str] = ""
    """The one of them that may also be a tensor of its own: the output matrix, where it need not be the embedding."""
    told_by_weights: ClassVar[tuple[str, ...]] = ()
    """Fields of ours that no setting says: a tensor is there, or it is not."""
    widening: ClassVar[Settings] = {}
    """Fields that an exported model may have besides its own, because zeros can stand for what it lacks (biases)."""

    @abstractmethod
    def read(self, settings: Settings) -> Settings:
        """Arguments of :class:`TransformerConfig` from a ``config.json``.

        Raises:
            ConfigError: it asks for something that is not here; names the key.
        """

    @abstractmethod
    def write(self, config: TransformerConfig) -> Settings:
        """A ``config.json`` for ``config``, without what all families have in common."""

    @abstractmethod
    def weights(self, config: TransformerConfig) -> list[Weight]:
        """The table of names, for a model with its head."""

    def tidy(self, state: State, arguments: Settings) -> State:
        """A loaded state under the names of a model with a head, every tensor under one name.

        Args:
            arguments: of :meth:`read`.

        Raises:
            CheckpointError: a tensor that models of this family share has two values.
        """
        found = dict(state)
        if self.prefix and not any(name.startswith(self.prefix) for name in found):
            found = {f"{self.prefix}{name}": value for name, value in found.items()}
        for name, first in self.second_names.items():
            own = name == self.output_matrix and not arguments.get("tie_embeddings", True)
            if own or name not in found:
                continue
            value = found.pop(name)
            if torch.equal(found.setdefault(first, value), value):
                continue
            if name != self.output_matrix:
                raise CheckpointError(f"{name} and {first} differ: a {self.model_type} model shares them")
            found[name] = value
        return found

    def adjust(self, arguments: Settings, state: State) -> Settings:
        """Arguments of :meth:`read` where only the (tidy) weights tell the whole story.

        As transformers does: an output matrix that is not the embedding is one of its own, whatever the settings say.
        """
        return {**arguments, "tie_embeddings": False} if self.output_matrix in state else arguments

    def widened(self, config: TransformerConfig) -> TransformerConfig:
        """``config`` with what this family always has."""
        return config.replace(**self.widening)

    def output(self, name: str) -> str:
        """Full name of a part of the output layer."""
        return f"heads.{self.head}.output.{name}"


def require(settings: Settings, model_type: str, **wanted: Any) -> None:
    """Refuse values that would need another function than ours; a key that is absent is fine.

    Raises:
        ConfigError: names the key and both values.
    """
    for key, value in wanted.items():
        allowed = value if isinstance(value, tuple) else (value,)
        if key in settings and settings[key] not in allowed:
            raise ConfigError(
                f"config.json of a {model_type} model: {key} {settings[key]!r} is not supported, {value!r} is"
            )


def require_equal(settings: Settings, model_type: str, key: str, other: str) -> None:
    """Refuse two settings that are one here and differ.

    Raises:
        ConfigError: names both.
    """
    if settings.get(key) is not None and settings[key] != settings[other]:
        raise ConfigError(
            f"config.json of a {model_type} model: {key} {settings[key]!r} is not supported beside "
            f"{other} {settings[other]!r}: encoder and decoder must be alike in this"
        )


def activation(settings: Settings, key: str, known: dict[str, str]) -> str:
    """Our name of an activation.

    Raises:
        ConfigError: one that is not here.
    """
    name = settings.get(key)
    if name not in known:
        raise ConfigError(
            f"config.json: {key} {name!r} is not supported{nearest(str(name), known)} (known: {', '.join(known)})"
        )
    return known[name]


def named(known: dict[str, str], ours: str) -> str:
    """Their (first) name of one of our activations; another where they have none, which :func:`differences` sees."""
    return next((theirs for theirs, name in known.items() if name == ours), next(iter(known)))


ACTIVATIONS = {
    "gelu_new": "gelu_tanh",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}
"""Plain feed-forwards, by the names transformers gives them."""


def differences(config: TransformerConfig, family: Family) -> list[str]:
    """Fields that ``family`` cannot express as they are in ``config``; empty when it can express all."""
    wide = family.widened(config)
    try:
        back = TransformerConfig(**family.read({"model_type": family.model_type, **family.write(wide)})).to_dict()
    except ConfigError as mistake:
        return [str(mistake)]
    return [
        f"backbone.{name} {value!r}" for name, value in wide.to_dict().items()
        if name not in INDIFFERENT and name not in family.told_by_weights and back[name] != value
    ]  # fmt: skip
