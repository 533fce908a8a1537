"""Transformer-XL memory (Dai et al. 2019): hidden states of a lane's earlier rows, which later rows also attend to.

A lane is a continuing text: a document that did not fit goes on in the lane's next row. Its states are kept without
gradients, so that texts longer than a row are read with all of a row's context behind every row. Where a document
ends, so does what can be seen of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Carried:
    """What the rows of one batch bring along, and what they leave behind.

    Args:
        states: of each layer ``[B, M, D]``: its inputs for the last tokens of the rows before.
        segments: ``[B, M]``: the number of each row's first segment where a state belongs to it, else 0.
    """

    def __init__(self, states: list[Tensor], segments: Tensor) -> None:
        self.states, self.segments = states, segments
        self.left: list[Tensor] = []

    @property
    def length(self) -> int:
        """States a row brings along, M."""
        return self.segments.shape[1]

    def leave(self, layer: int, x: Tensor) -> Tensor:
        """Keep this layer's inputs ``[B, T, D]`` for the next rows; returns those of the rows before."""
        earlier = self.states[layer].to(x.dtype)
        self.left.append(torch.cat((earlier, x.detach()), dim=1)[:, -self.length :])
        return earlier


class Recurrence:
    """The states of all lanes; part of a checkpoint, and one of its own for training and for evaluation.

    Args:
        layers, length, width: L, M and D.
    """

    def __init__(self, layers: int, length: int, width: int) -> None:
        self.layers, self.length, self.width = layers, length, width
        self.lanes: dict[int, tuple[Tensor, Tensor]] = {}

    def enter(self, lanes: list[int], continues: Tensor, segments: Tensor, dtype: torch.dtype) -> Carried:
        """States for the rows of a batch.

        Args:
            lanes: of each row; negative for padding rows.
            continues: ``[B]``, True where the row's first document began in the lane's last row.
            segments: ``[B, T]``, of the rows.
        """
        device = segments.device
        nothing = torch.zeros(self.layers, self.length, self.width, dtype=dtype, device=device)
        never = torch.zeros(self.length, dtype=torch.bool, device=device)
        found = [self.lanes.get(lane, (nothing, never)) for lane in lanes]
        states = torch.stack([state.to(dtype) for state, _ in found], dim=1)
        belongs = torch.stack([real for _, real in found]) & continues[:, None]
        return Carried(list(states), belongs * segments[:, :1])

    def leave(self, lanes: list[int], carried: Carried, segments: Tensor) -> None:
        """Keep what the rows of a batch left: the states of each row's last document."""
        everything = torch.cat((carried.segments, segments), dim=1)
        last = segments[:, -1:]
        real = ((everything == last) & (last > 0))[:, -self.length :]
        states = torch.stack(carried.left)
        for row, lane in enumerate(lanes):
            if lane >= 0:
                self.lanes[lane] = states[:, row].clone(), real[row].clone()

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors by lane."""
        return {str(lane): {"states": states, "real": real} for lane, (states, real) in sorted(self.lanes.items())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with saved states."""
        self.lanes = {int(lane): (kept["states"], kept["real"]) for lane, kept in state.items()}

    def to(self, device: torch.device) -> None:
        """Move all states."""
        self.lanes = {lane: (states.to(device), real.to(device)) for lane, (states, real) in self.lanes.items()}
