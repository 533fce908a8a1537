"""Who may look at whom: built once a forward pass, read by every layer and kernel."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor


class AttentionMask:
    """Visibility of keys to queries, and what each kernel wants to know about it (computed at most once).

    Query *t* of row *b* sees key *s* when their segments are equal and not 0 (padding) and, if ``causal``, when key *s*
    does not come after it. Without segments everything is one segment. A query of segment 0 sees nothing: its output
    is zero, or, where :attr:`plain` lets a kernel ignore right-padding, finite and of no consequence.

    Args:
        causal: keys after the query are hidden; query 0 stands at key ``offset``.
        query_segments: ``[B, T]``, or None.
        key_segments: ``[B, S]`` (default: those of the queries).
        offset: keys that precede the first query (the length of a cache).
    """

    def __init__(
        self,
        causal: bool,
        query_segments: Tensor | None = None,
        key_segments: Tensor | None = None,
        offset: int = 0,
    ) -> None:
        self.causal = causal
        self.offset = offset
        self.query_segments = query_segments
        self.key_segments = query_segments if key_segments is None else key_segments
        self.own = key_segments is None and offset == 0
        """Queries and keys are the same positions."""
        self._dense: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}

    @cached_property
    def plain(self) -> bool:
        """True when no mask tensor is needed: ``is_causal``, or nothing at all, says everything.

        Right-padded causal rows of one segment qualify: padding is in the future of every real query.
        """
        queries, keys = self.query_segments, self.key_segments
        if queries is None or keys is None:
            return self.own or not self.causal
        if self.causal and not self.own:
            return False
        first = queries[:, :1]
        if self.causal:
            one_segment = (queries == first) | (queries == 0)
            return bool((one_segment[:, 1:] & (queries[:, 1:] <= queries[:, :-1])).all())
        everywhere = (queries == first).all() & (first > 0).all()
        return bool(everywhere if self.own else everywhere & (keys == first).all())

    @cached_property
    def runs(self) -> list[tuple[int, int, int, int]]:
        """``(row, start, stop, segment)`` of every run of equal segments, padding included; they tile ``[B, T]``."""
        assert self.query_segments is not None
        segments = self.query_segments.cpu()
        batch, length = segments.shape
        begins = torch.ones_like(segments, dtype=torch.bool)
        begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
        starts = begins.flatten().nonzero().flatten()
        stops = [*starts[1:].tolist(), batch * length]
        numbers = segments.flatten()[starts].tolist()
        return [
            (start // length, start % length, stop - start // length * length, number)
            for start, stop, number in zip(starts.tolist(), stops, numbers, strict=True)
        ]

    @cached_property
    def spans(self) -> list[tuple[int, int, int]]:
        """``(row, start, stop)`` of every document: a run of one positive segment."""
        return [(row, start, stop) for row, start, stop, number in self.runs if number > 0]

    @cached_property
    def splits(self) -> bool:
        """True when rows hold several documents, each in one piece, so that each can be computed by itself."""
        if not self.own or self.query_segments is None or len(self.spans) <= len(self.query_segments):
            return False
        return len({(row, number) for row, _, _, number in self.runs if number > 0}) == len(self.spans)

    def dense(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """Boolean ``[B or 1, 1, T, S]``: True where the query sees the key."""
        mask = torch.ones(1, queries, keys, dtype=torch.bool, device=device)
        if self.causal:
            mask = mask.tril(self.offset)
        if self.query_segments is not None and self.key_segments is not None:
            same = self.query_segments[:, :, None] == self.key_segments[:, None, :]
            mask = mask & same & (self.key_segments > 0)[:, None, :]
        return mask[:, None]

    def for_kernel(self, queries: int, keys: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """:meth:`dense` with a visible key in every row, and ``[B or 1, 1, T, 1]``: the rows that really have none.

        The softmax of nothing would be NaN, so kernels let such rows look everywhere and zero their output. The second
        is None when there are none.
        """
        if (queries, keys) not in self._dense:
            visible = self.dense(queries, keys, device)
            empty = ~visible.any(-1, keepdim=True)
            self._dense[queries, keys] = (visible | empty, empty) if bool(empty.any()) else (visible, None)
        return self._dense[queries, keys]
