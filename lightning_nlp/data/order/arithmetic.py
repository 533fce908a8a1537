"""Batch sizes: what the user says, and what follows for one rank."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_nlp.data.order.budget import cost
from lightning_nlp.data.order.ramp import BatchRamp
from lightning_nlp.errors import ConfigError

DEFAULT_ROWS = 32


@dataclass(frozen=True)
class BatchSize:
    """What ``data.*batch*`` settings ask for.

    Attributes:
        rows: of a global batch, by step; None where it is measured in tokens.
        tokens: positions of a global batch at most, padding included; None where it is measured in rows.
        micro: rows, or positions, that a rank handles at once; None: its whole share.
    """

    rows: BatchRamp | None
    tokens: int | None
    micro: int | None


def batch_size(
    rows: int | None,
    tokens: int | None,
    ramp: dict[int, int] | None,
    micro_rows: int | None,
    micro_tokens: int | None,
    length: int | None,
) -> BatchSize:
    """Make sense of the settings.

    Args:
        rows: ``data.global_batch_size``.
        tokens: ``data.global_batch_tokens``.
        ramp: ``data.batch_ramp``.
        micro_rows: ``data.micro_batch_size``.
        micro_tokens: ``data.micro_batch_tokens``.
        length: tokens in every row; None when rows differ.

    Raises:
        ConfigError: settings that contradict each other, or impossible values.
    """
    for name, value in {
        "global_batch_size": rows,
        "global_batch_tokens": tokens,
        "micro_batch_size": micro_rows,
        "micro_batch_tokens": micro_tokens,
    }.items():
        if value is not None and value < 1:
            raise ConfigError(f"data.{name} must be at least 1, not {value}")
    if rows is not None and tokens is not None:
        raise ConfigError("data.global_batch_size and data.global_batch_tokens say the same: give one")
    if micro_rows is not None and micro_tokens is not None:
        raise ConfigError("data.micro_batch_size and data.micro_batch_tokens say the same: give one")
    if length is not None:
        for name, value in {"global_batch_tokens": tokens, "micro_batch_tokens": micro_tokens}.items():
            if value is not None and value % length:
                raise ConfigError(f"data.{name} {value} is no multiple of data.max_length {length}")
        rows = tokens // length if tokens is not None else rows
        micro_rows = micro_tokens // length if micro_tokens is not None else micro_rows
    elif tokens is not None:
        if ramp:
            raise ConfigError("data.batch_ramp counts rows: give data.global_batch_size beside it, not tokens")
        if micro_rows is not None:
            raise ConfigError("data.micro_batch_size beside data.global_batch_tokens: give data.micro_batch_tokens")
        return BatchSize(None, tokens, micro_tokens)
    elif micro_tokens is not None:
        raise ConfigError("data.micro_batch_tokens beside data.global_batch_size: give data.micro_batch_size")
    final = rows if rows is not None else max(ramp.items())[1] if ramp else DEFAULT_ROWS
    return BatchSize(BatchRamp.of(final, ramp), None, micro_rows)


def accumulation(size: BatchSize, ranks: int, lanes: int, longest: tuple[int, int] = (0, 0)) -> int:
    """Micro-batches of one optimizer step on each rank.

    Args:
        size: of the batch.
        ranks: data ranks.
        lanes: streams the rows are drawn from.
        longest: tokens of the longest row, and of its source.

    Raises:
        ConfigError: sizes that do not divide; the message has the numbers.
    """
    if lanes % ranks:
        raise ConfigError(f"data.lanes {lanes} is not divisible by {ranks} data ranks")
    if size.rows is None:
        return _of_tokens(size, ranks, lanes, longest)
    final, over = size.rows.final, f" x {ranks} data ranks" if ranks > 1 else ""
    if final % ranks:
        raise ConfigError(f"data.global_batch_size {final} is not divisible by {ranks} data ranks")
    if (final // ranks) % (size.micro or 1):
        raise ConfigError(
            f"data.global_batch_size {final} is not divisible by data.micro_batch_size {size.micro}{over}"
        )
    parts = final // ranks // size.micro if size.micro else 1
    for rows in size.rows.sizes:
        name = "data.global_batch_size" if rows == final else "data.batch_ramp:"
        if rows % lanes and lanes % rows:
            raise ConfigError(f"{name} {rows} and data.lanes {lanes}: one must divide the other")
        if rows % (ranks * parts):
            raise ConfigError(f"{name} {rows} is not divisible into {parts} micro-batches{over}")
    return parts


def _of_tokens(size: BatchSize, ranks: int, lanes: int, longest: tuple[int, int]) -> int:
    assert size.tokens is not None
    each = lanes // ranks
    parts = 1 if size.micro is None else max(-(-size.tokens // ranks // size.micro), 1)
    if each % parts:
        raise ConfigError(
            f"data.global_batch_tokens {size.tokens} is {parts} micro-batches of {size.micro} on {ranks} data ranks, "
            f"to which data.lanes {lanes} cannot be dealt evenly"
        )
    if (least := cost(1, longest)) > size.tokens // lanes:
        raise ConfigError(
            f"data.global_batch_tokens {size.tokens} over data.lanes {lanes} leaves {size.tokens // lanes} for a lane, "
            f"and the longest row may need {least}: raise it, or lower data.lanes"
        )
    return parts
