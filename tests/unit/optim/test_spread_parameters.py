"""Optimizers take the same steps on parameters that are spread over ranks as on whole ones: FSDP2, TP and both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lightning_nlp.optim.config import OptimizerConfig
from lightning_nlp.optim.optimizers import build_optimizer

SETTINGS = {
    "adamw": {},
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adafactor": {"momentum": 0.9},
    "lion": {},
    "muon": {},
}
LAYOUTS = {"fsdp2": (4, 1), "tensor_parallel": (1, 4), "both": (2, 2)}
"""``(data ranks, tensor ranks)``. Ten rows over four ranks: their parts differ in size."""
WIDTH, INNER, STEPS = 10, 12, 2


class Network(nn.Module):
    """Only its parameters matter: gradients are given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(11, WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 2 * WIDTH)
        self.up = nn.Linear(WIDTH, INNER)
        self.down = nn.Linear(INNER, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)


def matrices(name: str) -> tuple[int, ...] | None:
    return (WIDTH, WIDTH // 2, WIDTH // 2) if "query_key_value" in name else ()


def spread(module: nn.Module, data: int, tensor: int) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_module
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    mesh = init_device_mesh("cpu", (data, tensor), mesh_dim_names=("data", "tensor"))
    if tensor > 1:
        plan = {"query_key_value": ColwiseParallel(), "up": ColwiseParallel(), "down": RowwiseParallel()}
        distribute_module(parallelize_module(module, mesh["tensor"], plan), mesh["tensor"])  # the rest is replicated
    if data > 1:
        fully_shard(module, mesh=mesh["data"])
    return module


def built(module: nn.Module, name: str) -> torch.optim.Optimizer:
    return build_optimizer(module, OptimizerConfig(name, lr=0.02, **SETTINGS[name]), matrices=matrices)


def take_step(module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """With gradients that are the same however a parameter is spread."""
    from torch.distributed.tensor import distribute_tensor

    for number, parameter in enumerate(module.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(100 * step + number))
        if hasattr(parameter, "placements"):
            parameter.grad = distribute_tensor(parameter.grad, parameter.device_mesh, parameter.placements)
    optimizer.step()


def whole(module: nn.Module) -> dict[str, Tensor]:
    named = {key: value.detach() for key, value in module.named_parameters()}
    return {key: value.full_tensor() if hasattr(value, "placements") else value.clone() for key, value in named.items()}


def trained(module: nn.Module, name: str) -> dict[str, Tensor]:
    """Whole parameters after a few steps."""
    optimizer = built(module, name)
    for step in range(STEPS):
        take_step(module, optimizer, step)
    return whole(module)


def resumed(name: str) -> dict[str, Tensor]:
    """The same, spread over FSDP2, and for the last step over both: state and weights go through whole tensors."""
    from torch.distributed.checkpoint import state_dict as states

    module = spread(Network(), *LAYOUTS["fsdp2"])
    optimizer = built(module, name)
    for step in range(STEPS - 1):
        take_step(module, optimizer, step)
    options = states.StateDictOptions(full_state_dict=True)
    weights, state = states.get_state_dict(module, optimizer, options=options)
    other = spread(Network(), *LAYOUTS["both"])
    again = built(other, name)
    states.set_state_dict(other, again, model_state_dict=weights, optim_state_dict=state, options=options)
    take_step(other, again, STEPS - 1)
    return whole(other)


def rank_main(rank: int, path: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{path / 'meet'}", rank=rank, world_size=4)
    found = {(way, name): trained(spread(Network(), *LAYOUTS[way]), name) for way in LAYOUTS for name in SETTINGS}
    found |= {("resumed", name): resumed(name) for name in SETTINGS}
    if rank == 0:
        torch.save(found, path / "found.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    import torch.distributed.fsdp
    import torch.distributed.tensor.parallel  # once here, instead of in every process

    path = tmp_path_factory.mktemp("spread")
    torch.multiprocessing.start_processes(rank_main, (path,), nprocs=4, start_method="fork")
    return torch.load(path / "found.pt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("layout", [*LAYOUTS, "resumed"])
def test_steps_do_not_depend_on_how_parameters_are_spread(found, layout, name):
    expected, start = trained(Network(), name), dict(Network().named_parameters())
    assert found[layout, name].keys() == expected.keys()
    for key, value in expected.items():
        # Kernels round the last elements of a part otherwise, and Adafactor adds sums of parts; Muon's are whole again.
        exact = name == "muon" and key.endswith(("value.weight", "up.weight", "down.weight"))
        torch.testing.assert_close(found[layout, name][key], value, rtol=0, atol=0.0 if exact else 3e-7)
        assert not torch.equal(value, start[key]), key
