"""Which part of a model each rank holds, by the name of a strategy. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_nlp.errors import ConfigError, nearest

SHARDED = {
    # what the data ranks share out among them
    "none": (),
    "ddp": (),
    "zero1": ("optimizer",),
    "zero2": ("optimizer", "gradients"),
    "fsdp": ("optimizer", "gradients", "weights"),
}
"""ZeRO's stages (Rajbhandari et al. 2020), of which the third is FSDP; stages that share less keep whole copies."""
SPELLINGS = {"auto": "none", "single_device": "none", "fsdp2": "fsdp", "zero3": "fsdp", "model_parallel": "fsdp"}
SPELLINGS |= {"tp": "fsdp", "tp_fsdp2": "fsdp"}
NAMED: dict[str, dict[str, int | str]] = {
    "fsdp2": {},
    "tp": {"tensor_parallel_size": "auto"},
    "tp_fsdp2": {"tensor_parallel_size": 2},
}
"""The named strategies that deal weights out: settings of one class."""
CLASSES = (
    # part of a class's name, what it does
    ("DDP", "ddp"),
    ("SingleDevice", "none"),
    ("FSDP", "fsdp"),
    ("ModelParallel", "fsdp"),
    ("TensorParallel", "fsdp"),
)


@dataclass(frozen=True)
class Shares:
    """What things are divided by on one rank."""

    weights: int = 1
    gradients: int = 1
    optimizer: int = 1
    tensor: int = 1
    """Besides, of matrices and of what is between them: heads, the inside of the feed-forward, the vocabulary."""


def mesh_sizes(devices: int, nodes: int, data: int | str, tensor: int | str) -> tuple[int, int]:
    """Data-parallel and tensor-parallel processes; ``auto``: all others, and all of a node.

    Raises:
        ConfigError: they do not make up all processes.
    """
    world = devices * nodes
    tensor = devices if tensor == "auto" else int(tensor)
    data = max(world // tensor, 1) if data == "auto" else int(data)
    if data * tensor != world:
        raise ConfigError(
            f"trainer.strategy: data_parallel_size {data} x tensor_parallel_size {tensor} are {data * tensor} "
            f"processes, trainer.devices and num_nodes give {world}"
        )
    return data, tensor


def shares(strategy: str, data: int = 1, tensor: int = 1) -> Shares:
    """Divisors of a strategy.

    Args:
        strategy: ``none``, ``ddp``, ``zero1``, ``zero2``, ``fsdp`` or another spelling of one.
        data: ranks that see different data.
        tensor: ranks that hold one model together.

    Raises:
        ConfigError: no such strategy.
    """
    name = strategy.lower()
    for start in ("ddp", "fsdp"):  # ddp_find_unused_parameters_true, fsdp_cpu_offload
        name = start if name.startswith(f"{start}_") else name
    name = SPELLINGS.get(name, name)
    if name not in SHARDED:
        known = [*SHARDED, *SPELLINGS]
        raise ConfigError(f"plan does not know trainer.strategy '{strategy}'{nearest(strategy, known)}")
    return Shares(**{part: data for part in SHARDED[name]}, tensor=tensor)


def strategy_of_class(path: str) -> str | None:
    """The strategy that a class is, by its name; None when it does not say."""
    name = path.rpartition(".")[2]
    return next((strategy for part, strategy in CLASSES if part in name), None)
