"""Computing in bfloat16 from float32 master weights (Micikevicius et al. 2018, section 3.1).

The parameters of a module stay float32: they are the master weights, and all that optimizers, clipping, checkpoints and
distributed wrappers ever see. While the module computes, every parameter is replaced by a narrow copy, made once per
optimizer step; a node of the graph in between returns the narrow gradient to the master in float32, so micro-batches
and ranks are summed in float32.

Two of PyTorch's CPU kernels sum over tokens in bfloat16, which stops growing at 256 equal terms: those of embeddings
and of layer norms. They are replaced while the module computes; other devices sum in float32 anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class Rows:
    """Gradients of embedding rows that were looked up, until their master's gradient is made."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add_to(self, gradient: Tensor) -> None:
        """Add to ``gradient [V, D]`` and forget."""
        for tokens, rows in self.parts:
            gradient.index_add_(0, tokens, rows)
        self.parts.clear()


class Narrow(torch.autograd.Function):
    """A master's narrow copy, and a scalar that :class:`Lookup` hangs on; their gradients go to the master, widened."""

    @staticmethod
    def forward(ctx: Any, master: Tensor, copy: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.like, ctx.rows = master.detach(), rows
        return copy.detach(), torch.zeros((), device=master.device)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor | None, anchor: Tensor | None) -> tuple[Tensor | None, None, None]:
        wide = torch.zeros_like(ctx.like) if gradient is None else gradient.to(ctx.like.dtype)
        ctx.rows.add_to(wide)
        return wide, None, None


class Lookup(torch.autograd.Function):
    """Embedding rows of ``tokens``; :class:`Narrow` adds their gradients to the master's, row by row, in float32."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, copy: Tensor, tokens: Tensor, padding: int | None, rows: Rows) -> Tensor:
        ctx.tokens, ctx.padding, ctx.rows = tokens, padding, rows
        return F.embedding(tokens, copy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        tokens, rows = ctx.tokens.flatten(), gradient.flatten(0, -2).float()
        if ctx.padding is not None:
            rows = rows.masked_fill((tokens == ctx.padding)[:, None], 0.0)
        ctx.rows.parts.append((tokens, rows))
        return torch.zeros((), device=gradient.device), None, None, None, None


class WideLayerNorm(torch.autograd.Function):
    """Layer norm in float32 with narrow input and output; no slower than the narrow kernel, whose gains' gradient is
    5 % off over 2048 rows."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: tuple[int, ...], gain: Tensor | None, bias: Tensor | None, eps: float
    ) -> Tensor:
        output, mean, inverse = torch.native_layer_norm(x.float(), shape, gain, bias, eps)
        ctx.save_for_backward(x, mean, inverse, gain, bias)
        ctx.shape = shape
        return output.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, inverse, gain, bias = ctx.saved_tensors
        needs = [ctx.needs_input_grad[number] for number in (0, 2, 3)]
        by_x, by_gain, by_bias = torch.ops.aten.native_layer_norm_backward(
            gradient.float(), x.float(), ctx.shape, mean, inverse, gain, bias, needs
        )
        return by_x if by_x is None else by_x.to(x.dtype), None, by_gain, by_bias, None


Forward = Callable[[Tensor], Tensor]


class MasterWeights:
    """Lets ``module`` compute in ``dtype`` while its own parameters stay what they are.

    Every float32 parameter is narrowed, except layer norms' on a CPU. Buffers are left alone.

    Call :meth:`changed` after each optimizer step: fused optimizers leave no trace in the parameters they change.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype = torch.bfloat16) -> None:
        self.module, self.dtype = module, dtype
        self._owners: list[tuple[dict[str, Any], str, int]] = []
        self._masters: list[nn.Parameter] = []
        self._copies: list[Tensor] = []
        self._versions: list[int] = []
        self._embeddings: list[tuple[nn.Embedding, int]] = []
        self._norms: list[tuple[nn.Module, Forward]] = []
        self._computing = False
        self._last: list[Tensor] = []
        self._forwards: list[tuple[nn.Module, Forward]] = []

    def changed(self) -> None:
        """The masters have new values: copy them before the next computation."""
        self._versions = []

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, the module's parameters are its narrow copies; gradients of what is computed reach the masters."""
        if self._computing:
            yield
            return
        self._refresh()
        rows = [Rows() for _ in self._masters]
        anchors: list[Tensor | None] = []
        self._last = []
        for master, copy, own in zip(self._masters, self._copies, rows, strict=True):
            narrow, anchor = copy, None
            if master.requires_grad and torch.is_grad_enabled():
                narrow, anchor = Narrow.apply(master, copy, own)
            self._last.append(narrow)
            anchors.append(anchor)
        self._forwards = list(self._norms)
        for child, number in self._embeddings:
            if (anchor := anchors[number]) is not None:
                self._forwards.append((child, lookup(anchor, self._copies[number], child.padding_idx, rows[number])))
        with self._swapped():
            yield

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """The parameters of the last :meth:`computing` again: around a backward pass that runs blocks a second time."""
        if self._computing or not self._last:
            yield
            return
        with self._swapped():
            yield

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        self._computing = True
        for parameters, name, number in self._owners:
            parameters[name] = self._last[number]
        for child, forward in self._forwards:
            child.__dict__["forward"] = forward
        try:
            yield
        finally:
            for parameters, name, number in self._owners:
                parameters[name] = self._masters[number]
            for child, _ in self._forwards:
                del child.__dict__["forward"]
            self._computing = False

    def _refresh(self) -> None:
        if not self._fits():
            self._allocate()
        versions = [master._version for master in self._masters]
        if versions != self._versions:
            with torch.no_grad():
                torch._foreach_copy_(self._copies, list[Tensor](self._masters))
            self._versions = versions

    def _fits(self) -> bool:
        """Whether the module still has the parameters, on the device, that the copies were made for."""
        if not self._masters:
            return False
        same = all(parameters.get(name) is self._masters[number] for parameters, name, number in self._owners)
        return same and all(
            copy.device == master.device and copy.shape == master.shape
            for copy, master in zip(self._copies, self._masters, strict=True)
        )

    def _allocate(self) -> None:
        self._owners, self._masters, self._embeddings, self._norms = [], [], [], []
        numbers: dict[int, int] = {}
        for child in self.module.modules():
            own = {name: value for name, value in child._parameters.items() if value is not None}
            own = {name: value for name, value in own.items() if value.dtype == torch.float32}
            on_cpu = all(value.device.type == "cpu" for value in own.values())
            if type(child) is nn.LayerNorm and on_cpu:
                self._norms.append((child, wide_norm(child, self.dtype)))
                continue
            for name, parameter in own.items():
                if id(parameter) not in numbers:  # a shared parameter has one copy
                    numbers[id(parameter)] = len(self._masters)
                    self._masters.append(parameter)
                self._owners.append((child._parameters, name, numbers[id(parameter)]))
            if isinstance(child, nn.Embedding) and own and on_cpu and is_plain(child):
                self._embeddings.append((child, numbers[id(child.weight)]))
        with torch.inference_mode(False):  # a first use in a validation must not make copies no training can use
            self._copies = [torch.empty_like(master, dtype=self.dtype) for master in self._masters]
        self._versions = []


def is_plain(module: nn.Embedding) -> bool:
    """True for embeddings whose gradient is the plain sum of looked-up rows."""
    special = module.sparse or module.scale_grad_by_freq or module.max_norm is not None
    return type(module) is nn.Embedding and not special


def lookup(anchor: Tensor, copy: Tensor, padding: int | None, rows: Rows) -> Forward:
    """A ``forward`` for an embedding, through :class:`Lookup`."""
    return lambda tokens: Lookup.apply(anchor, copy, tokens, padding, rows)


def wide_norm(module: nn.LayerNorm, dtype: torch.dtype) -> Forward:
    """A ``forward`` for a layer norm, through :class:`WideLayerNorm` where its input is narrow."""

    def forward(x: Tensor) -> Tensor:
        if x.dtype != dtype:
            return F.layer_norm(x, module.normalized_shape, module.weight, module.bias, module.eps)
        return WideLayerNorm.apply(x, module.normalized_shape, module.weight, module.bias, module.eps)

    return forward
