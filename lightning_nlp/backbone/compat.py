"""Shims for what older versions lack: machines with a GPU lag behind the ones this is developed on.

The oldest are PyTorch 2.11 and Python 3.11; each shim says with which it can go. Nothing else in ``backbone/``,
``decoding/`` and ``optim/`` needs more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any, Generic, TypeVar, overload

from torch import Tensor

Kernel = Callable[..., Any]
Value = TypeVar("Value")


class cached_property(Generic[Value]):
    """``functools.cached_property`` without the lock it takes before Python 3.12; goes with 3.12.

    ``torch.compile`` cannot trace a lock: every block that reads such a property would fall apart into pieces.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        self.function, self.__doc__ = function, function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> cached_property[Value] | Value:
        if instance is None:
            return self
        value = instance.__dict__[self.name] = self.function(instance)  # found there from now on, and not here
        return value


@cache
def varlen_attention() -> Kernel:
    """``torch.nn.attention.varlen.varlen_attn`` with ``enable_gqa``, which 2.11 lacks; goes with 2.13."""
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn if "enable_gqa" in inspect.signature(varlen_attn).parameters else with_groups(varlen_attn)


def with_groups(kernel: Kernel) -> Kernel:
    """``kernel`` of equally many query and key heads, with grouped heads: keys and values are repeated for it."""

    def attention(query: Tensor, key: Tensor, value: Tensor, *rest: Any, enable_gqa: bool, **options: Any) -> Any:
        if enable_gqa:
            repeats = query.shape[1] // key.shape[1]
            key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
        return kernel(query, key, value, *rest, **options)

    return attention
