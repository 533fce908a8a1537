"""A few examples of an evaluation worth reading: the worst, and some chosen by chance. Nothing else is held."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from torchmetrics.utilities.distributed import gather_all_tensors

Record = dict[str, Any]
Rank = tuple[Any, ...]


class Examples:
    """Keeps the examples with the highest scores, and those whose ids have the lowest hashes.

    So the choice depends on ids and scores alone: not on the order they come in, nor on how many ranks share them.

    Args:
        number: of worst ones, and of those chosen by chance.
    """

    def __init__(self, number: int) -> None:
        self.worst, self.random = Highest(number), Highest(number)

    def offer(self, identity: str, score: float, make: Callable[[], Record], enough: bool = True) -> None:
        """One example.

        Args:
            identity: its id; an example that is kept already is not kept twice.
            score: higher is worse; what is not finite is worst of all.
            make: its record of plain values, asked for only where the example is kept.
            enough: the score says something; the worst are first sought among such examples.
        """
        digest = int.from_bytes(hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        height = score if math.isfinite(score) else math.inf
        places = (self.worst, (enough, height, digest)), (self.random, (-digest,))
        wanted = [(kept, rank) for kept, rank in places if kept.wants(rank, identity)]
        if wanted:
            record = {"id": identity, "score": score if math.isfinite(score) else None, **make()}
            for kept, rank in wanted:
                kept.add(rank, identity, record)

    def amend(self, identity: str, **values: Any) -> None:
        """Add to the record of an example that is kept."""
        for kept in (self.worst, self.random):
            if identity in kept.records:
                kept.records[identity].update(values)

    def gather(self, device: Any) -> None:
        """Take the choice of all ranks, which must all call this. ``device``: what they talk through."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        for kept in (self.worst, self.random):
            told = json.dumps(kept.entries).encode()
            parts = gather_all_tensors(torch.frombuffer(bytearray(told), dtype=torch.uint8).to(device))
            for part in parts:
                for rank, identity, record in json.loads(bytes(part.cpu().tolist())):
                    if kept.wants(tuple(rank), identity):
                        kept.add(tuple(rank), identity, record)

    @property
    def chosen(self) -> dict[str, list[Record]]:
        """``worst``, the worst first, and ``random``; an example in both is one object."""
        worst, random = ([record for _, _, record in sorted(kept.entries, reverse=True)] for kept in self._sides)
        same = {record["id"]: record for record in worst}
        return {"worst": worst, "random": [same.get(record["id"], record) for record in random]}

    @property
    def _sides(self) -> tuple[Highest, Highest]:
        return self.worst, self.random


class Highest:
    """The ``number`` entries of the highest rank."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.records: dict[str, Record] = {}
        self._heap: list[tuple[Rank, str]] = []

    @property
    def entries(self) -> list[tuple[Rank, str, Record]]:
        """Rank, id and record of each, in no order."""
        return [(rank, identity, self.records[identity]) for rank, identity in self._heap]

    def wants(self, rank: Rank, identity: str) -> bool:
        """True where this one would be kept, and is not yet."""
        room = len(self._heap) < self.number
        return identity not in self.records and (room or (bool(self._heap) and (rank, identity) > self._heap[0]))

    def add(self, rank: Rank, identity: str, record: Record) -> None:
        """Keep this one, which is wanted."""
        self.records[identity] = record
        heapq.heappush(self._heap, (rank, identity))
        if len(self._heap) > self.number:
            del self.records[heapq.heappop(self._heap)[1]]
