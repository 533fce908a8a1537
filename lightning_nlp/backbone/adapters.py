"""Adapters: small trained parts at frozen linear layers. They leave the function as it is until they are trained.

==========  ====================================================================================================
lora        ``W x + (alpha / rank) B A x``; B starts at 0 (Hu et al. 2021). Can be merged into W, and taken out again
bottleneck  ``y + U gelu(D y + d) + u`` with y the layer's output; U and u start at 0 (Houlsby et al. 2019)
==========  ====================================================================================================

An adapted layer is still an ``nn.Linear`` with ``weight`` and ``bias`` under their old names, so that checkpoints of
the base load unchanged; what is new is called ``<layer>.adapter.*``.

Which layers: patterns of their names (:mod:`lightning_nlp.backbone.selection`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.backbone.selection import select
from lightning_nlp.errors import ConfigError, nearest

KINDS = ("none", "lora", "bottleneck")
PARTS = ("query", "key", "value")
USUAL_TARGETS = {"lora": ["attention.query_key_value"], "bottleneck": ["feedforward.down"]}
"""LoRA at the attention, as its authors; one bottleneck a layer, behind the feed-forward (Pfeiffer et al. 2021)."""
BELONGS = {
    **dict.fromkeys(("parts", "rank", "alpha", "rank_stabilized"), ("lora",)),
    "width": ("bottleneck",),
    **dict.fromkeys(("targets", "dropout"), ("lora", "bottleneck")),
}
"""Fields that mean something only for some kinds."""

Rows = list[tuple[int, int]]
"""``[(start, stop), ...]``: which outputs of a layer are adapted, each pair by matrices of its own."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """Which adapters, and at which layers.

    Raises:
        ConfigError: impossible values, all named in one line.
    """

    kind: Literal["none", "lora", "bottleneck"] = "none"
    """lora (beside a layer), bottleneck (behind it) or none."""
    targets: list[str] | None = None
    """Patterns of linear layers (default: attention.query_key_value for lora, feedforward.down for bottleneck)."""
    parts: list[Literal["query", "key", "value"]] | None = None
    """lora: what is adapted of matrices that hold several (query_key_value, key_value); default: query and value."""
    rank: int = 8
    """lora: columns of B; a part of a fused matrix has A and B of its own."""
    alpha: float = 16.0
    """lora: the update is multiplied by alpha / rank."""
    rank_stabilized: bool = False
    """lora: by alpha / sqrt(rank) instead (Kalajdzievski 2023)."""
    width: int = 64
    """bottleneck: units in the middle."""
    dropout: float = 0.0
    """Of the adapter's input."""

    def __post_init__(self) -> None:
        found = []
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise ConfigError(f"unknown adapter.kind '{self.kind}'{nearest(str(self.kind), KINDS)} (known: {known})")
        for field in fields(self):
            kinds = BELONGS.get(field.name, KINDS)
            if self.kind not in kinds and getattr(self, field.name) != field.default:
                wanted = " or ".join(kinds)
                found.append(f"adapter.{field.name} belongs to adapter.kind {wanted}, but adapter.kind is {self.kind}")
        if self.targets is None and self.kind != "none":
            object.__setattr__(self, "targets", list(USUAL_TARGETS[self.kind]))
        for name in ("targets", "parts"):
            if getattr(self, name) is not None and not getattr(self, name):
                found.append(f"adapter.{name} is empty: name at least one, or leave it out")
        for part in self.parts or ():
            if part not in PARTS:
                found.append(f"unknown adapter.parts '{part}'{nearest(str(part), PARTS)} (known: {', '.join(PARTS)})")
        for name in ("rank", "width"):
            if getattr(self, name) < 1:
                found.append(f"adapter.{name} must be at least 1, not {getattr(self, name)}")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            found.append(f"adapter.alpha must be above 0, not {self.alpha}")
        if not 0 <= self.dropout < 1:
            found.append(f"adapter.dropout must be in [0, 1), not {self.dropout}")
        if found:
            raise ConfigError("; ".join(found))

    @property
    def scale(self) -> float:
        """Factor of a LoRA update."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``AdapterConfig(**config.to_dict()) == config``."""
        return asdict(self)

    def differences(self, other: AdapterConfig) -> list[str]:
        """Fields that keep the weights of the one from being weights of the other: all but dropout count."""
        ours, theirs = self.to_dict(), other.to_dict()
        return [name for name, value in ours.items() if name != "dropout" and theirs[name] != value]


# Layers -------------------------------------------------------------------------------------------------------


class LoRA(nn.Module):
    """A change of some outputs of a linear layer that has rank ``r``: ``A [parts * r, in]``, ``B [adapted, r]``."""

    def __init__(self, layer: nn.Linear, config: AdapterConfig, rows: Rows) -> None:
        super().__init__()
        self.rows, self.scale = rows, config.scale
        self.a = nn.Parameter(layer.weight.new_empty(len(rows) * config.rank, layer.in_features))
        self.b = nn.Parameter(layer.weight.new_empty(sum(stop - start for start, stop in rows), config.rank))
        self.dropout = nn.Dropout(config.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """No change: A as the authors' code draws it (uniform up to in^-0.5), B zero."""
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        nn.init.zeros_(self.b)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """``x [..., in]``, the layer's ``y [..., out]`` -> ``[..., out]``."""
        low = F.linear(self.dropout(x), self.a)
        for (start, stop), part, b in parts_of(self.rows, low, self.b):
            y[..., start:stop] += self.scale * F.linear(part, b)  # y is new: nothing else has seen it
        return y


def parts_of(rows: Rows, low: Tensor, b: Tensor) -> Iterator[tuple[tuple[int, int], Tensor, Tensor]]:
    """The adapted outputs, each with its share of ``low [..., parts * r]`` and of ``B [adapted, r]``."""
    return zip(rows, low.chunk(len(rows), dim=-1), b.split([stop - start for start, stop in rows]), strict=True)


@torch.no_grad()
def merged_weight(weight: Tensor, a: Tensor, b: Tensor, rows: Rows, scale: float) -> Tensor:
    """``W + scale * B A``, computed in float32 or finer and rounded once to the dtype of W ``[out, in]``."""
    fine = torch.promote_types(weight.dtype, torch.float32)
    total = weight.detach().to(fine, copy=True)
    for (start, stop), part, high in parts_of(rows, a.detach().to(fine).t(), b.detach().to(fine)):
        total[start:stop] += scale * (high @ part.t())
    return total.to(weight.dtype)


class Bottleneck(nn.Module):
    """Down to a few units, through GELU, and up again, added to the layer's output; before the block's residual sum."""

    def __init__(self, layer: nn.Linear, config: AdapterConfig) -> None:
        super().__init__()
        self.down = nn.Parameter(layer.weight.new_empty(config.width, layer.out_features))
        self.down_bias = nn.Parameter(layer.weight.new_empty(config.width))
        self.up = nn.Parameter(layer.weight.new_empty(layer.out_features, config.width))
        self.up_bias = nn.Parameter(layer.weight.new_empty(layer.out_features))
        self.dropout = nn.Dropout(config.dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The identity: the way up is zero, so that the way down may be of any size."""
        nn.init.normal_(self.down, std=self.down.shape[1] ** -0.5)
        for parameter in (self.down_bias, self.up, self.up_bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The layer's ``y [..., out] -> [..., out]``."""
        return y + F.linear(F.gelu(F.linear(self.dropout(y), self.down, self.down_bias)), self.up, self.up_bias)


class AdaptedLinear(nn.Linear):
    """A linear layer and its adapter. ``state_dict`` holds the base weight, also while the adapter is merged."""

    original: Tensor | None

    def __init__(self, layer: nn.Linear, adapter: LoRA | Bottleneck) -> None:
        nn.Module.__init__(self)  # not nn.Linear's: the parameters are those of ``layer``, the very same objects
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = layer.weight
        self.register_parameter("bias", layer.bias)
        self.adapter = adapter
        self.register_buffer("original", None, persistent=False)

    @property
    def merged(self) -> bool:
        """The weight holds the adapter's change."""
        return self.original is not None

    def forward(self, input: Tensor) -> Tensor:
        """``[..., in] -> [..., out]``."""
        output = super().forward(input)
        return output if self.merged else self.adapter(input, output)

    def merged_weight(self) -> Tensor:
        """The weight of the linear layer that does the same without an adapter.

        Raises:
            ConfigError: a bottleneck is no linear map.
        """
        if not isinstance(self.adapter, LoRA):
            raise ConfigError("adapter.kind bottleneck cannot be merged: only a lora change is a linear map")
        if self.merged:
            return self.weight.detach().clone()
        return merged_weight(self.weight, self.adapter.a, self.adapter.b, self.adapter.rows, self.adapter.scale)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the change into the weight; the original is kept. Raises what :meth:`merged_weight` raises."""
        total = self.merged_weight()
        if not self.merged:
            self.original = self.weight.detach().clone()
            self.weight.copy_(total)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Put the original weight back, bit for bit."""
        if self.original is not None:
            self.weight.copy_(self.original)
            self.original = None

    def train(self, mode: bool = True) -> AdaptedLinear:
        """As ``nn.Module.train``; an adapter that is to be trained must not be merged."""
        if mode:
            self.unmerge()
        super().train(mode)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.original is not None:
            destination[f"{prefix}weight"] = self.original

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.unmerge()
        super()._load_from_state_dict(*args, **kwargs)


# Models -------------------------------------------------------------------------------------------------------


def attach(backbone: nn.Module, adapter: AdapterConfig, config: TransformerConfig) -> list[str]:
    """Give layers of a backbone their adapters, in place; returns their names, as ``backbone.decoder...``.

    Nothing happens with ``adapter.kind`` none.

    Raises:
        ConfigError: a pattern matches no linear layer, ``parts`` selects nothing, or there are adapters already.
    """
    if any(isinstance(layer, AdaptedLinear) for layer in backbone.modules()):
        raise ConfigError("the backbone already has an adapter: fold it in, or start from its base")
    layers = {f"backbone.{name}": child for name, child in backbone.named_modules() if isinstance(child, nn.Linear)}
    chosen = select(adapter.targets or (), layers, "adapter.targets")
    if adapter.parts is not None and not any(fused_sizes(name, config) for name in chosen):
        raise ConfigError("adapter.parts is given, but no matrix in adapter.targets holds several parts")
    # All made before the first is put in: a mistake leaves the backbone as it was.
    made = {
        name: Bottleneck(layers[name], adapter)
        if adapter.kind == "bottleneck"
        else LoRA(layers[name], adapter, adapted_rows(name, layers[name].out_features, adapter, config))
        for name in chosen
    }
    for name in chosen:
        replace(backbone, name.removeprefix("backbone."), AdaptedLinear(layers[name], made[name]))
    return chosen


def fused_sizes(name: str, config: TransformerConfig) -> dict[str, int]:
    """``{part: rows}`` of a matrix that holds several, in their order; empty for one that does not."""
    sizes = {"query": config.n_heads * config.d_head, "key": config.n_kv_heads * config.d_head}
    sizes["value"] = sizes["key"]
    if name.endswith("query_key_value"):
        return sizes
    return {part: sizes[part] for part in ("key", "value")} if name.endswith(".key_value") else {}


def adapted_rows(name: str, outputs: int, adapter: AdapterConfig, config: TransformerConfig) -> Rows:
    """The outputs of layer ``name`` that are adapted.

    Raises:
        ConfigError: ``parts`` selects none of them.
    """
    sizes = fused_sizes(name, config)
    if not sizes:
        return [(0, outputs)]
    wanted, rows, start = adapter.parts or ("query", "value"), [], 0
    for part, size in sizes.items():
        if part in wanted:
            rows.append((start, start + size))
        start += size
    if not rows:
        raise ConfigError(f"adapter.parts {', '.join(wanted)} selects nothing of {name} ({', '.join(sizes)})")
    return rows


def replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    """Put ``layer`` where the submodule called ``name`` was."""
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)


def adapted_layers(module: nn.Module) -> dict[str, AdaptedLinear]:
    """Layers with an adapter, by name."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, AdaptedLinear)}


def is_adapter(name: str) -> bool:
    """True for the name of a tensor that belongs to an adapter."""
    return ".adapter." in name


def merge(module: nn.Module) -> None:
    """Merge all LoRA adapters below ``module``: as fast as without. Raises as :meth:`AdaptedLinear.merge`."""
    for layer in adapted_layers(module).values():
        layer.merge()


def unmerge(module: nn.Module) -> None:
    """Undo :func:`merge`, bit for bit."""
    for layer in adapted_layers(module).values():
        layer.unmerge()


def fold(module: nn.Module) -> None:
    """Merge for good: adapted layers become plain ``nn.Linear``. Raises as :meth:`AdaptedLinear.merged_weight`."""
    weights = {name: layer.merged_weight() for name, layer in adapted_layers(module).items()}
    for name, layer in adapted_layers(module).items():
        plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(weights[name])
        plain.register_parameter("bias", layer.bias)
        replace(module, name, plain.train(layer.training))


def folded_state(state: dict[str, Tensor], adapter: AdapterConfig, config: TransformerConfig) -> dict[str, Tensor]:
    """:func:`fold` for a state dict of ``backbone.*`` and other names.

    Raises:
        ConfigError: a bottleneck is no linear map.
    """
    if adapter.kind != "lora":
        raise ConfigError("adapter.kind bottleneck cannot be merged: only a lora change is a linear map")
    found = {name: value for name, value in state.items() if not is_adapter(name)}
    for name in (name.removesuffix(".adapter.a") for name in state if name.endswith(".adapter.a")):
        weight, a, b = (state[f"{name}.{part}"] for part in ("weight", "adapter.a", "adapter.b"))
        rows = adapted_rows(name, len(weight), adapter, config)
        found[f"{name}.weight"] = merged_weight(weight, a, b, rows, adapter.scale)
    return found
