"""What a family of models of another library says about itself: its configuration and its table of names."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.interop.weights import State, Weight

Settings = dict[str, Any]
"""The content of a ``config.json``."""

INDIFFERENT = ("size", "dropout", "init", "init_std", "mup_base_width", "pad_id", "d_head", "decoder_start_id")
"""Fields of ours that another library's configuration may say otherwise, or not at all, without another function."""


class Family:
    """Base of all families.

    A family can express one of our configurations exactly when reading what it wrote gives the same configuration
    back: :func:`fits` relies on this, so ``write`` need not check anything.
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

    def read(self, settings: Settings) -> Settings:
        """Arguments of :class:`TransformerConfig` from a ``config.json``.

        Raises:
            ConfigError: it asks for something that is not here; names the key.
        """
        raise NotImplementedError

    def write(self, config: TransformerConfig) -> Settings:
        """A ``config.json`` for ``config``, without what all families have in common."""
        raise NotImplementedError

    def weights(self, config: TransformerConfig) -> list[Weight]:
        """The table of names, for a model with its head."""
        raise NotImplementedError

    def tidy(self, state: State, config_settings: Settings) -> State:
        """A loaded state under the names of a model with a head, without second names of shared tensors."""
        if self.prefix and not any(name.startswith(self.prefix) for name in state):
            return {f"{self.prefix}{name}": value for name, value in state.items()}
        return state

    def adjust(self, arguments: Settings, state: State) -> Settings:
        """Arguments of :meth:`read` where only the weights tell the whole story."""
        return arguments

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
    """Their (first) name of one of our activations; ours where they have none, which :func:`fits` will notice."""
    return next((theirs for theirs, name in known.items() if name == ours), ours)


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
    try:
        back = TransformerConfig(**family.read({"model_type": family.model_type, **family.write(config)})).to_dict()
    except ConfigError as mistake:
        return [str(mistake)]
    return [
        f"backbone.{name} {value!r}" for name, value in config.to_dict().items()
        if name not in INDIFFERENT and back[name] != value
    ]  # fmt: skip
