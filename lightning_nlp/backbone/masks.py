"""Who may look at whom: built once a forward pass, read by every layer and kernel."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor


class AttentionMask:
    """Visibility of keys to queries.

    Query *t* of row *b* sees key *s* when their segments are equal and not 0 (padding) and, if ``causal``, when key *s*
    does not come after it. Without segments everything is one segment.

    Args:
        causal: keys after the query are hidden; query 0 stands at key ``offset``.
        query_segments: ``[B, T]``, 0 = padding, or None.
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
        self.query_segments = query_segments
        self.key_segments = query_segments if key_segments is None else key_segments
        self.offset = offset
        self.own = key_segments is None and offset == 0

    @cached_property
    def plain(self) -> bool:
        """True when no mask tensor is needed: ``is_causal`` or nothing says it all.

        Right-padded causal rows of one segment qualify: padding is in the future of every real query.
        """
        if self.query_segments is None or self.key_segments is None:
            return self.own or not self.causal
        if not self.own:
            return False
        segments = self.query_segments
        if self.causal:
            return bool((segments[:, :1] == segments).logical_or(segments == 0).all()) and bool(
                (segments[:, 1:] <= segments[:, :-1]).all()
            )
        return bool((segments == segments[:, :1]).all()) and bool((segments > 0).all())

    @cached_property
    def spans(self) -> list[tuple[int, int, int]]:
        """``(row, start, stop)`` of every run of equal, non-padding segments, in order."""
        assert self.query_segments is not None
        found = []
        for row, segments in enumerate(self.query_segments.cpu()):
            values, counts = torch.unique_consecutive(segments, return_counts=True)
            start = 0
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                if value > 0:
                    found.append((row, start, start + count))
                start += count
        return found

    def dense(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """Boolean ``[B or 1, 1, T, S]``: True where the query sees the key. Made once, shared by all layers."""
        cached = self.__dict__.get("_dense")
        if cached is not None and cached.shape[-2:] == (queries, keys):
            return cached
        mask = torch.ones(1, queries, keys, dtype=torch.bool, device=device)
        if self.causal:
            mask = mask.tril(self.offset)
        if self.query_segments is not None and self.key_segments is not None:
            same = self.query_segments[:, :, None] == self.key_segments[:, None, :]
            mask = mask & same & (self.key_segments > 0)[:, None, :]
        self.__dict__["_dense"] = mask[:, None]
        return self.__dict__["_dense"]
