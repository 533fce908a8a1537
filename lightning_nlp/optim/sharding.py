"""What an optimizer must know of parameters that are spread over ranks (``DTensor``: FSDP2, tensor parallelism).

Elementwise work is done on each rank's own part (``collectives.local``). Whatever looks at a whole matrix gathers it,
so that steps do not depend on how its parameters are spread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from torch import Tensor

from lightning_nlp.backbone.parallel.collectives import is_spread

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def whole(tensor: Tensor) -> Tensor:
    """The whole tensor, gathered from all ranks; every rank must ask."""
    return cast("DTensor", tensor).full_tensor() if is_spread(tensor) else tensor


def spread_like(part: Tensor, like: Tensor) -> Tensor:
    """This rank's ``part`` of a tensor that is spread as ``like``."""
    if not is_spread(like):
        return part
    from torch.distributed.tensor import DTensor

    like = cast("DTensor", like)
    shape, stride = like.shape, like.stride()
    return DTensor.from_local(part, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride)


def everywhere(tensor: Tensor, like: Tensor) -> Tensor:
    """``tensor``, equal on all ranks, as something that can be computed with beside ``like``."""
    if not is_spread(like):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    mesh = cast("DTensor", like).device_mesh
    return DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)


def own_part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of ``tensor``, which every rank has whole, if it were spread as ``like``; nothing is sent."""
    if not is_spread(like):
        return tensor
    same, spread = cast("DTensor", everywhere(tensor, like)), cast("DTensor", like)
    return same.redistribute(placements=spread.placements).to_local()
