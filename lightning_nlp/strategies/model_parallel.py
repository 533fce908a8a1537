"""Weights dealt out to the processes: FSDP2, tensor parallel, or both at once, on GPUs and on CPUs alike.

Processes stand in a mesh of data-parallel rows and tensor-parallel columns. A column holds its heads and hidden units
of every layer (:mod:`lightning_nlp.backbone.parallel.plan`); a row's share of what is left is gathered block by block
while it is computed with (Rajbhandari et al. 2020, ZeRO stage 3; PyTorch's ``fully_shard``).
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, StrategyRegistry
from torch import Tensor, nn
from torch.distributed import distributed_c10d
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor
from torchmetrics import Metric

from lightning_nlp.backbone.parallel.layout import Pieces, dealt, like
from lightning_nlp.backbone.parallel.plan import TensorParallel
from lightning_nlp.errors import ConfigError
from lightning_nlp.run import sharded, sharding, weights
from lightning_nlp.run.duration import parse_duration
from lightning_nlp.strategies import state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lightning_nlp.tasks.base import TaskModule

STARTING = timedelta(minutes=10)
STEPS = ("training_step", "validation_step", "test_step", "predict_step")


class ModelParallel(ModelParallelStrategy):
    """Data-parallel rows times tensor-parallel columns; every process holds a part of every weight.

    Args:
        tensor_parallel_size: processes that share the layers of one copy of the model; ``auto``: all of a node.
        data_parallel_size: processes with data of their own, which share what is left; ``auto``: all others.
        sequence_parallel: between attention and feed-forward, tensor-parallel processes share the sequence too: less
            memory for activations, the same traffic.
        sharded_checkpoints: every process writes its part, into a directory; else the first process writes one file.
        cpu_offload: keep weights, gradients and optimizer state in main memory while they are not computed with.
        gather_for_evaluation: hold whole layers while evaluating: faster, and needed to decode texts, whose lengths
            differ from process to process.
        timeout: wait so long for another process, such as ``30m``, before giving up.
        process_group_backend: ``nccl`` or ``gloo``; by default what fits the device, and both with ``cpu_offload``.
    """

    def __init__(
        self,
        tensor_parallel_size: int | Literal["auto"] = 1,
        data_parallel_size: int | Literal["auto"] = "auto",
        sequence_parallel: bool = False,
        sharded_checkpoints: bool = True,
        cpu_offload: bool = False,
        gather_for_evaluation: bool = True,
        timeout: str = "30m",
        process_group_backend: str | None = None,
    ) -> None:
        for name, size in (("tensor", tensor_parallel_size), ("data", data_parallel_size)):
            if size != "auto" and (not isinstance(size, int) or size < 1):
                raise ConfigError(f"{name}_parallel_size must be a number of processes or auto, not {size}")
        self.limit = parse_duration(timeout, "timeout") or STARTING
        if cpu_offload and torch.cuda.is_available() and process_group_backend is None:
            process_group_backend = "cpu:gloo,cuda:nccl"  # gradients are in main memory when their norm is summed
        # Processes that start may take longer than any message.
        first = max(self.limit, STARTING)
        super().__init__(data_parallel_size, tensor_parallel_size, sharded_checkpoints, process_group_backend, first)
        self.sequence_parallel, self.cpu_offload = sequence_parallel, cpu_offload
        self.gather_for_evaluation = gather_for_evaluation
        self.compute_dtype: torch.dtype | None = None
        """Of computation, where it differs from that of the weights: gradients are summed in float32."""
        self.pieces: dict[str, Pieces] = {}
        self._gathered = ExitStack()
        self._saving_group: Any = None
        self._module_names: dict[int, str] = {}

    # Sizes --------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Decide how many processes do what, before any of them is started.

        Raises:
            ConfigError: the processes do not make up a mesh.
        """
        self._data_parallel_size, self._tensor_parallel_size = sharding.mesh_sizes(
            self.num_processes, self.num_nodes, self._data_parallel_size, self._tensor_parallel_size
        )

    @property
    def data_group(self) -> Any:
        """The process group of those with different data."""
        return self.device_mesh["data_parallel"].get_group()

    @property
    def tensor_ranks(self) -> int:
        return int(self.device_mesh["tensor_parallel"].size())

    def setup_environment(self) -> None:
        super().setup_environment()
        if self._save_distributed_checkpoint and self._saving_group is None:
            self._saving_group = torch.distributed.new_group(backend="gloo", timeout=self._timeout)

    def setup(self, trainer: Any) -> None:
        super().setup(trainer)
        for name in (None, "data_parallel", "tensor_parallel"):  # groups of a mesh have limits of their own
            group = torch.distributed.group.WORLD if name is None else self.device_mesh[name].get_group()
            distributed_c10d._set_pg_timeout(self.limit, group)

    # The model ----------------------------------------------------------------------------------------------------

    def shard(self, module: TaskModule) -> None:
        """Deal out a module that has just been built: whole and the same in every process, or on the meta device."""
        assert module.backbone is not None
        columns, rows = self.device_mesh["tensor_parallel"], self.device_mesh["data_parallel"]
        if columns.size() > 1:
            self.pieces = TensorParallel(module, module.backbone, columns, self.sequence_parallel).pieces
        policy: dict[str, Any] = {"mesh": rows}
        if self.compute_dtype is not None:
            policy["mp_policy"] = MixedPrecisionPolicy(param_dtype=self.compute_dtype, reduce_dtype=torch.float32)
        if self.cpu_offload:
            policy["offload_policy"] = CPUOffloadPolicy(pin_memory=torch.cuda.is_available())
        else:
            policy["offload_policy"] = OffloadPolicy()
        for block in module.backbone.blocks():
            fully_shard(block, **policy)
        fully_shard(module, **policy)
        module._apply(lambda value: torch.zeros_like(value, device=self.root_device) if value.is_meta else value)
        for name in STEPS:
            register_fsdp_forward_method(module, name)
        self._module_names = {id(child): f"{name}." for name, child in module.named_modules() if name}
        for child in module.modules():
            if isinstance(child, Metric):
                child.process_group = self.data_group

    def row_orders(self) -> dict[Tensor, Tensor]:
        """Of every fused parameter: where its rows stand that a single process has one after the other."""
        assert self.model is not None
        parameters = dict(self.model.named_parameters())
        return {
            parameters[name]: dealt(pieces, self.tensor_ranks).to(parameters[name].device)
            for name, pieces in self.pieces.items()
        }

    @contextmanager
    def whole_parameters(self, module: nn.Module) -> Iterator[None]:
        """Inside, the module's own parameters are whole tensors to be filled; this process then keeps its part of them.

        Every process fills them with the same numbers: random states are the same before training.
        """
        own = module._parameters
        parts: dict[str, Any] = {name: value for name, value in own.items() if isinstance(value, DTensor)}
        prefix = self._module_names.get(id(module), "")
        filled = {name: nn.Parameter(torch.empty(value.shape, dtype=value.dtype)) for name, value in parts.items()}
        own.update(filled)
        try:
            yield
            for name, value in parts.items():
                pieces = self.pieces.get(f"{prefix}{name}")
                value.detach().copy_(like(filled[name].detach(), value, pieces, self.tensor_ranks))
        finally:
            own.update(parts)

    def sync_gradients(self, now: bool) -> None:
        """Whether the next backward pass sends gradients: only the last of an optimizer step needs to."""
        module = self.lightning_module
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(now)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Inside, no process waits for another to compute a layer; unless ``gather_for_evaluation`` is off."""
        parts = [part for part in self.lightning_module.modules() if isinstance(part, FSDPModule)]  # type: ignore[union-attr]
        if not self.gather_for_evaluation:
            yield
            return
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(part is not self.lightning_module, recurse=False)
                part.reshard()

    def _gather(self) -> None:
        self._gathered.enter_context(self.whole())

    on_validation_start = on_test_start = on_predict_start = _gather

    def _release(self) -> None:
        self._gathered.close()

    on_validation_end = on_test_end = on_predict_end = _release

    # State --------------------------------------------------------------------------------------------------------

    @property
    def lightning_restore_optimizer(self) -> bool:
        """True: it comes in the form a single process has it, and :meth:`load_optimizer_state_dict` deals it out."""
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Weights as a model on one device has them: DTensors for sharded checkpoints, else whole on the first rank."""
        assert self.model is not None
        found = self.model.state_dict()
        return {name: self._canonical(value, self.pieces.get(name)) for name, value in found.items()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Likewise for what an optimizer remembers."""
        optimizer = getattr(optimizer, "_optimizer", optimizer)
        return state.mapped(optimizer, optimizer.state_dict(), self._names(), self.pieces, self._canonical)

    def _canonical(self, value: Any, pieces: Pieces | None) -> Any:
        keep = self._save_distributed_checkpoint or self.is_global_zero
        return state.canonical(value, pieces, self.tensor_ranks, self._save_distributed_checkpoint, keep)

    def _names(self) -> dict[int, str]:
        assert self.model is not None
        return {id(parameter): name for name, parameter in self.model.named_parameters()}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self._save_distributed_checkpoint:
            # A thread must not use the group that training uses meanwhile; gloo's messages go through main memory.
            sharded.save(checkpoint, Path(filepath), self.is_global_zero, self._saving_group)
        elif self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Everything but the tensors of a directory, which :meth:`load_model_state_dict` reads where they belong."""
        path = Path(self.broadcast(checkpoint_path))
        return sharded.outline(path) if sharded.is_sharded(path) else weights.read(path)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.model is not None
        ours = self.model.state_dict(keep_vars=True)
        saved = {name: value for name, value in checkpoint["state_dict"].items() if name in ours}
        state.fill(saved, ours, checkpoint.get(sharded.PLACE), self.pieces, self.tensor_ranks)
        if hasattr(self.model, "_given_weights"):
            self.model._given_weights = True  # type: ignore[assignment]

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        names = self._names()
        load = partial(state.load_optimizer, place=checkpoint.get(sharded.PLACE), pieces=self.pieces)
        for number, (optimizer, saved) in enumerate(zip(self.optimizers, checkpoint["optimizer_states"], strict=True)):
            load(optimizer, saved, number, names, ranks=self.tensor_ranks)


for name, sizes in sharding.NAMED.items():
    StrategyRegistry.register(name, ModelParallel, ModelParallel.__doc__, override=True, **sizes)
