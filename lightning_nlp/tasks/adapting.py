"""Which parameters of a task are trained, and the hash that ties an adapter to its base."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lightning_nlp.backbone.adapters import AdapterConfig, adapted_layers, fold, is_adapter
from lightning_nlp.backbone.selection import select
from lightning_nlp.errors import ConfigError

if TYPE_CHECKING:
    from lightning_nlp.tasks.base import TaskModule


def choose_trained(module: nn.Module, freeze: list[str] | None, trainable: list[str] | None) -> None:
    """Set ``requires_grad`` of every parameter; may be called again.

    Everything is trained, or, where the backbone has adapters, the adapters and the heads; less what ``freeze`` names,
    and with what ``trainable`` names, which wins. Patterns are those of :mod:`lightning_nlp.backbone.adapters`.

    Raises:
        ConfigError: a pattern matches nothing, or ``trainable`` names what is trained anyway.
    """
    parameters = dict(module.named_parameters())
    adapted = bool(adapted_layers(module))
    for name, parameter in parameters.items():
        parameter.requires_grad_(not adapted or is_adapter(name) or not name.startswith("backbone."))
    for name in select(freeze or (), parameters, "model.freeze"):
        parameters[name].requires_grad_(False)
    frozen = {name for name, parameter in parameters.items() if not parameter.requires_grad}
    for pattern in trainable or ():
        names = select([pattern], parameters, "model.trainable")
        if not frozen.intersection(names):
            raise ConfigError(f"model.trainable: '{pattern}' is trained anyway: it takes back what is frozen otherwise")
        for name in names:
            parameters[name].requires_grad_(True)


def trained_summary(module: nn.Module) -> str | None:
    """``"training 9,000 of 660,000 parameters (1.4 %): 8,192 adapter, 808 heads"``; None when all are."""
    counts = {"adapter": 0, "backbone": 0, "heads": 0}
    total = 0
    for name, parameter in module.named_parameters():
        total += parameter.numel()
        if parameter.requires_grad:
            kind = "adapter" if is_adapter(name) else "backbone" if name.startswith("backbone.") else "heads"
            counts[kind] += parameter.numel()
    trained = sum(counts.values())
    if trained == total:
        return None
    parts = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    return f"training {trained:,} of {total:,} parameters ({100 * trained / total:.2g} %): {parts}"


def own_state(module: nn.Module) -> dict[str, Tensor]:
    """What an adapted task does not share with its base: adapters, heads, and whatever else is trained."""
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {
        name: value
        for name, value in module.state_dict().items()
        if is_adapter(name) or name in trained or not name.startswith("backbone.")
    }


def base_hash(state: dict[str, Tensor], names: list[str]) -> str:
    """SHA-256 of the named tensors: names, types, shapes and bytes; the same on every device."""
    digest = hashlib.sha256()
    for name in sorted(names):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fold_adapters(task: TaskModule) -> TaskModule:
    """Merge the adapters of a task into its weights for good, in place: afterwards it is a plain task.

    Raises:
        ConfigError: bottleneck adapters are no linear maps.
    """
    fold(task)
    task.adapter = AdapterConfig()
    task.freeze_patterns = task.trainable_patterns = None
    return task.requires_grad_(True)
