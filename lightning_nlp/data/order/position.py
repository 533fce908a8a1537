"""Where a DataModule stands in its training data, and what became of the documents: saved, taken back, summed up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import lightning.pytorch as L
import torch.distributed

from lightning_nlp.data.order.documents import COUNTS, skipped_of, total
from lightning_nlp.data.order.stream import TrainStream
from lightning_nlp.data.sources.bad_rows import bad_of
from lightning_nlp.data.sources.source import SourceConfig
from lightning_nlp.data.summary import NAMES, in_numbers, in_words
from lightning_nlp.data.tokenizers.tokenizer import Tokenizer
from lightning_nlp.errors import CheckpointError


class Position(L.LightningDataModule, ABC):
    """The state of a DataModule, as of the last optimizer step; its sources, stream and tokenizer are set elsewhere."""

    tokenizer: Tokenizer | None
    source_config: SourceConfig
    ranks: int
    rank: int

    def __init__(self) -> None:
        super().__init__()
        self._stream: TrainStream | None = None
        self._restored: dict[str, Any] | None = None
        self._counts = dict.fromkeys(COUNTS, 0)

    @property
    @abstractmethod
    def lengths(self) -> str:
        """What rows are cut to, as the order of the data is known by."""

    @property
    def tokenizer_hash(self) -> str:
        assert self.tokenizer is not None
        return self.tokenizer.hash

    @property
    def order_fingerprint(self) -> str | None:
        """What fixes the order of the data; None before training data was opened."""
        return self._stream.fingerprint if self._stream is not None else None

    def state_dict(self) -> dict[str, Any]:
        """Position of every lane after the last optimizer step, and the tokenizer's hash; small and plain."""
        state: dict[str, Any] = {"tokenizer": self.tokenizer_hash} if self.tokenizer is not None else {}
        if self._stream is None or self.trainer is None:
            return state
        own, counts = self._stream.state(self.trainer.global_step), self._stream.counts(self.trainer.global_step)
        if self.ranks > 1:
            shares: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(shares, (self.rank, own, counts))
            by_rank = {rank: (share, numbers) for rank, share, numbers in shares}  # tensor-parallel peers hold the same
            own = {
                **own,
                "lanes": {lane: value for share, _ in by_rank.values() for lane, value in share["lanes"].items()},
            }
            counts = total(numbers for _, numbers in by_rank.values())
        self._counts = counts
        return {**state, "train": own}

    def summary(self) -> str:
        """What became of the documents read so far, over all ranks, as of the last checkpoint."""
        return in_words(self._counts, self.lengths)

    def counts(self, step: int) -> dict[str, int]:
        """What became of this rank's rows in the first ``step`` steps, under the same names on all ranks."""
        found = self._stream.counts(step) if self._stream is not None else {}
        return {name: found.get(name, 0) for name in NAMES} if found else {}

    def numbers(self, counts: dict[str, int]) -> dict[str, int]:
        """Sums of :meth:`counts` over ranks as metrics, such as ``data/bad_rows``."""
        return in_numbers(counts)

    def check_budget(self, counts: dict[str, int]) -> None:
        """Stop on all ranks at once, given sums of :meth:`counts` over ranks.

        Raises:
            DataError: more bad rows were skipped than allowed.
        """
        skipped = skipped_of(counts)
        rows = counts["documents"] + counts["dropped"] + sum(skipped.values())
        self.source_config.policy.check_budget(bad_of(skipped), rows, "train")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the position back; used when the training stream is made.

        Raises:
            CheckpointError: the run's tokenizer is not the one the checkpoint was trained with.
        """
        saved = state_dict.get("tokenizer")
        if saved is not None and self.tokenizer is not None and saved != self.tokenizer.hash:
            raise CheckpointError("tokenizer.json is not the tokenizer this checkpoint was trained with")
        self._restored = state_dict.get("train")
