"""How many rows a global batch has: the same all along, or more from some steps on (Smith et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_nlp.errors import ConfigError


@dataclass(frozen=True)
class BatchRamp:
    """Rows of the global batch by optimizer step.

    Attributes:
        stages: ``(first step, rows)``, in order, from step 0 on.
    """

    stages: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, rows: int, ramp: dict[int, int] | None) -> BatchRamp:
        """A ramp that ends at ``rows``; without ``ramp`` that is all there is.

        Raises:
            ConfigError: the ramp does not start at step 0, or ends elsewhere.
        """
        if not ramp:
            return cls(((0, rows),))
        stages = tuple(sorted(ramp.items()))
        if stages[0][0] != 0:
            raise ConfigError(f"data.batch_ramp starts at step {stages[0][0]}: say how many rows there are from step 0")
        if any(size < 1 for _, size in stages):
            raise ConfigError("data.batch_ramp has a batch of no rows")
        if stages[-1][1] != rows:
            raise ConfigError(f"data.batch_ramp ends with {stages[-1][1]} rows, data.global_batch_size is {rows}")
        return cls(stages)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every number of rows there will be."""
        return tuple(size for _, size in self.stages)

    @property
    def final(self) -> int:
        return self.stages[-1][1]

    def size(self, step: int) -> int:
        """Rows of step ``step`` (counted from 0)."""
        return next(size for first, size in reversed(self.stages) if first <= step)

    def first(self, step: int) -> int:
        """Number of the first row of ``step``: rows of all steps before."""
        ends = [first for first, _ in self.stages[1:]] + [step]
        return sum(
            (max(min(end, step) - first, 0)) * size for (first, size), end in zip(self.stages, ends, strict=True)
        )

    def steps(self, rows: int) -> int:
        """Steps after which at least ``rows`` rows were used."""
        last, size = self.stages[-1]
        if (left := rows - self.first(last)) > 0:
            return last + -(-left // size)
        low, high = 0, last
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.first(middle) >= rows else (middle + 1, high)
        return low

    def __str__(self) -> str:
        return str(self.final) if len(self.stages) == 1 else ",".join(f"{first}:{size}" for first, size in self.stages)
