"""Who may look at whom: built once a forward pass, read by every layer and kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_nlp.backbone.compat import cached_property
from lightning_nlp.errors import ConfigError


class AttentionMask:
    """Visibility of keys to queries, and what each kernel wants to know about it (computed at most once).

    Query *t* of row *b* sees key *s* when their segments are equal and not 0 (padding) and, if ``causal``, when key *s*
    does not come after it. Without segments everything is one segment. A query of segment 0 sees nothing: its output
    is zero, or, where :attr:`plain` lets a kernel ignore right-padding, finite and of no consequence.

    Args:
        causal: keys after the query are hidden; query 0 stands at key ``offset``.
        query_segments: ``[B, T]``, or None.
        key_segments: ``[B, S]`` (default: those of the queries).
        offset: keys that precede the first query (the length of a cache or of a memory).
        prefix: ``[B, S]``, True for keys that also earlier queries of their segment see (prefix language models).
        window: keys this many positions away, or more, are hidden (Longformer, Mistral).
        global_keys: ``[B, S]``, True for keys that are seen from any distance; for kernels with a window.
        cross: queries and keys are different sequences.

    Raises:
        ConfigError: a window, prefix or causal order between different sequences.
    """

    def __init__(
        self,
        causal: bool,
        query_segments: Tensor | None = None,
        key_segments: Tensor | None = None,
        offset: int = 0,
        *,
        prefix: Tensor | None = None,
        window: int | None = None,
        global_keys: Tensor | None = None,
        cross: bool = False,
    ) -> None:
        if cross and (window is not None or causal or prefix is not None):
            named = "a window" if window is not None else "a causal order" if causal else "a prefix"
            raise ConfigError(f"cross-attention has no use for {named}: its queries and keys are different sequences")
        self.causal = causal
        self.offset = offset
        self.query_segments = query_segments
        self.key_segments = query_segments if key_segments is None else key_segments
        self.own = key_segments is None and offset == 0 and not cross
        """Queries and keys are the same positions."""
        self.prefix = prefix if causal else None
        self.window = window
        self.global_keys = global_keys if window is not None else None
        self._dense: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}
        self._windowed: dict[int, AttentionMask] = {}
        self._whole: AttentionMask | None = None
        """The same without a window: what does not depend on one is asked there, once."""

    def within(self, window: int | None, global_keys: Tensor | None = None) -> AttentionMask:
        """The same mask with a window; every layer with that window gets the same object."""
        if window is None:
            return self
        if window not in self._windowed:
            keys = self.key_segments if self.key_segments is not self.query_segments else None
            self._windowed[window] = AttentionMask(
                self.causal, self.query_segments, keys, self.offset,
                prefix=self.prefix, window=window, global_keys=global_keys,
            )  # fmt: skip
            self._windowed[window]._whole = self
        return self._windowed[window]

    def look(self) -> None:
        """Look at the tensors now: a compiled block that did would be compiled again for what it then finds known."""
        _ = self.plain, self.splits

    def reaches(self, queries: int, keys: int) -> bool:
        """True when the window, if any, hides nothing from ``queries`` at the end of ``keys``."""
        return self.window is None or max(self.offset + queries, keys) <= self.window

    @cached_property
    def plain(self) -> bool:
        """True when, but for a window, no mask tensor is needed: ``is_causal``, or nothing at all, says everything.

        Right-padded causal rows of one segment qualify: padding is in the future of every real query.
        """
        if self._whole is not None:
            return self._whole.plain
        queries, keys = self.query_segments, self.key_segments
        if self.prefix is not None:
            return False
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
        if self._whole is not None:
            return self._whole.runs
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

    def piece(self, row: int, start: int, stop: int) -> AttentionMask:
        """The mask of one document of a mask that :attr:`splits`."""
        if self.prefix is None and self.global_keys is None:
            return self._one_document
        cut = [None if x is None else x[row : row + 1, start:stop] for x in (self.prefix, self.global_keys)]
        return AttentionMask(self.causal, prefix=cut[0], window=self.window, global_keys=cut[1])

    @cached_property
    def _one_document(self) -> AttentionMask:
        return AttentionMask(self.causal, window=self.window)

    def dense(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """Boolean ``[B or 1, 1, T, S]``: True where the query sees the key."""
        distance = torch.arange(self.offset, self.offset + queries, device=device)[:, None]
        distance = (distance - torch.arange(keys, device=device))[None]
        mask = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        if self.prefix is not None:
            mask = mask | self.prefix[:, None, :]
        if self.window is not None:
            near = distance.abs() < self.window
            mask = mask & (near if self.global_keys is None else near | self.global_keys[:, None, :])
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
