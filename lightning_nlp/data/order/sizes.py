"""How large the batches of a DataModule are on this rank, and what that makes of tokens and epochs in steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from lightning_nlp.data.order.arithmetic import BatchSize, accumulation
from lightning_nlp.data.order.mixture import MixtureConfig
from lightning_nlp.data.sources.source import Source
from lightning_nlp.errors import ConfigError


class BatchPlan(ABC):
    """The batch arithmetic of a DataModule, which has the settings."""

    packed: ClassVar[bool]
    several: ClassVar[bool]
    batch: BatchSize
    mixture: MixtureConfig
    packing: str
    max_length: int
    lanes: int
    workers: int
    ranks: int
    rank: int
    accumulation: int

    @abstractmethod
    def split(self, name: str) -> Source:
        """An opened split."""

    def plan(self, ranks: int, rank: int) -> int:
        """Fix this process's share of every global batch; returns micro-batches per step and rank.

        Raises:
            ConfigError: sizes that do not divide; the message has the numbers.
        """
        self.ranks, self.rank = ranks, rank
        self.accumulation = accumulation(self.batch, ranks, self.lanes, self.longest)
        if self.workers and self.lanes % (ranks * self.workers):
            over = f" x {ranks} data ranks" if ranks > 1 else ""
            raise ConfigError(f"data.lanes {self.lanes} is not divisible by data.workers {self.workers}{over}")
        return self.accumulation

    @property
    def longest(self) -> tuple[int, int]:
        """Tokens of the longest row there can be, and of its source."""
        return self.max_length, 0

    @property
    def global_batch_size(self) -> int:
        """Rows of a global batch; at least so many where it is measured in tokens."""
        if self.batch.rows is not None:
            return self.batch.rows.final
        assert self.batch.tokens is not None
        return max(self.batch.tokens // sum(self.longest), 1)

    @property
    def micro_batch_size(self) -> int:
        """Rows this rank handles at once; at least so many where a batch is measured in tokens."""
        return max(self.global_batch_size // self.ranks // self.accumulation, 1)

    @property
    def tokens_per_micro_batch(self) -> int:
        """Upper bound of the tokens one rank handles at once."""
        return self.micro_batch_size * self.max_length

    def steps_for_tokens(self, tokens: int, asked_by: str) -> int:
        """Optimizer steps after which ``tokens`` tokens were trained on.

        Raises:
            ConfigError: the tokens of a step differ from step to step.
        """
        if not self.packed or self.packing != "concatenate":
            raise ConfigError(f"{asked_by} needs full rows, here lengths differ: give trainer.max_steps or max_epochs")
        assert self.batch.rows is not None
        return self.batch.rows.steps(-(-tokens // self.max_length))

    def steps_for_epochs(self, epochs: int, asked_by: str) -> int:
        """Optimizer steps in which every training example is seen ``epochs`` times.

        Raises:
            ConfigError: that number is not known without reading everything.
        """
        rows = self.split("train").num_rows
        why = {
            "packed rows do not end with an epoch": self.packed,
            "a stream has no known length": rows is None,
            "a document may give several examples": self.several,
            "sources of a mixture do not end together": bool(self.mixture.sources),
            "batches of tokens differ in rows": self.batch.rows is None,
        }
        for reason, holds in why.items():
            if holds:
                raise ConfigError(f"{asked_by}: {reason}; give trainer.max_steps or trainer.max_tokens")
        assert rows is not None and self.batch.rows is not None
        return self.batch.rows.steps(epochs * rows)
