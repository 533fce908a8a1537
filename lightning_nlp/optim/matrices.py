"""Which weights of a model are matrices inside its blocks, and what each is made of; what Muon asks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from lightning_nlp.backbone.config import TransformerConfig

Rows = tuple[int, ...]
Matrices = Callable[[str], Rows | None]
"""A parameter's name to the rows of the matrices stacked in it (``()``: it is one); None: it is none inside a block."""


def none_inside(name: str) -> Rows | None:
    """Nothing is known to be inside a block."""
    return None


def block_matrices(name: str, config: TransformerConfig) -> Rows | None:
    """Rows of queries, keys and values in one weight; None for what lies outside of blocks: embeddings and outputs."""
    if ".layers." not in name and ".transform." not in name:
        return None
    keys = config.n_kv_heads * config.d_head
    if name.endswith("query_key_value.weight"):
        return (config.n_heads * config.d_head, keys, keys)
    return (keys, keys) if name.endswith(".key_value.weight") else ()


def hidden_matrices(module: nn.Module, matrices: Matrices) -> dict[str, Rows]:
    """Weights of trained linear layers that ``matrices`` knows, by name."""
    linear = (f"{name}.weight" for name, child in module.named_modules() if isinstance(child, nn.Linear))
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    found = {name: matrices(name) for name in linear if name in trained}
    return {name: rows for name, rows in found.items() if rows is not None}
