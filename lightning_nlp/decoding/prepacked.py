"""Faster linear layers for generation on a CPU: weights in the order oneDNN reads them, packed once.

``F.linear`` reorders, or reads badly, its weight at every call; with few rows (one a text) that is most of the time.
The packing operators are not part of PyTorch's public interface: where they are missing, or refuse, nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LEAST_STEPS, LEAST_STEPS_ALONE = 16, 32
"""Steps from which packing costs less than it saves, with four or more rows and with fewer."""
DTYPES = (torch.float32, torch.bfloat16)


def pack(weight: Tensor, rows: int) -> Callable[[Tensor, Tensor | None], Tensor] | None:
    """``F.linear`` with a packed copy of ``weight [O, I]``, for inputs of about ``rows`` rows; None: not here.

    The copy does not follow later changes of the weight, and has no gradient.
    """
    if weight.device.type != "cpu" or weight.dtype not in DTYPES or weight.dim() != 2:
        return None
    try:
        multiply = torch.ops.mkldnn._linear_pointwise.default
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)

        def linear(x: Tensor, bias: Tensor | None) -> Tensor:
            found: Tensor = multiply(x, packed, bias, "none", [], "")
            return found

        linear(torch.zeros(rows, weight.shape[1], dtype=weight.dtype), None)
    except (AttributeError, RuntimeError, NotImplementedError):  # no such operator here: older PyTorch, other processor
        return None
    return linear


class PackedWeights(TorchFunctionMode):
    """While active, ``F.linear`` with a parameter uses a packed copy of it: for output matrices tied to embeddings.

    Args:
        rows: of the inputs, about.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.known: dict[int, tuple[Tensor, Callable[[Tensor, Tensor | None], Tensor] | None]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if func is F.linear and len(args) >= 2 and not kwargs and isinstance(args[1], nn.Parameter):
            x, weight = args[:2]
            if id(weight) not in self.known:  # the weight is kept too, so that no other gets its number
                self.known[id(weight)] = weight, pack(weight, self.rows)
            linear = self.known[id(weight)][1]
            if linear is not None and x.dtype == weight.dtype:
                return linear(x, args[2] if len(args) > 2 else None)
        return func(*args, **(kwargs or {}))


def possible(module: nn.Module) -> bool:
    """Packing can be of use to ``module`` here and now: on a CPU, without gradients, hooks of autocast or tracing."""
    weight = next(module.parameters(), None)
    return (
        weight is not None
        and not hasattr(weight, "to_local")  # a DTensor: other ranks hold the rest
        and weight.device.type == "cpu"
        and weight.dtype in DTYPES
        and torch.backends.mkldnn.is_available()
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


@contextmanager
def prepacked(module: nn.Module, rows: int, steps: int = LEAST_STEPS_ALONE) -> Iterator[PackedWeights | None]:
    """Replace the products of every ``nn.Linear`` in ``module`` by packed ones for a while; outputs agree to rounding.

    Only for inference on a CPU without autocast (elsewhere nothing happens). Weights must not change meanwhile, and
    take twice their memory. Sub-classes of ``nn.Linear``, and modules whose ``forward`` was replaced, stay as they are.

    Args:
        rows: of the inputs, about: texts that are decoded at a time.
        steps: calls to come; where they are too few to pay for packing, nothing happens.

    Yields:
        A mode for products outside of the module (an output matrix), or None where nothing happens.
    """
    if steps < (LEAST_STEPS if rows >= 4 else LEAST_STEPS_ALONE) or not possible(module):
        yield None
        return
    replaced = []
    try:
        for child in module.modules():
            if type(child) is nn.Linear and "forward" not in vars(child):
                linear = pack(child.weight, rows)
                if linear is not None:
                    vars(child)["forward"] = forward_of(linear, child.bias)
                    replaced.append(child)
        yield PackedWeights(rows)
    finally:
        for child in replaced:
            del vars(child)["forward"]


def forward_of(linear: Callable[[Tensor, Tensor | None], Tensor], bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A forward method of one argument."""
    return lambda x: linear(x, bias)
