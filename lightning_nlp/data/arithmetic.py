"""Batch sizes: what the user says, and what follows for one rank."""

from __future__ import annotations

from lightning_nlp.errors import ConfigError

DEFAULT_ROWS = 32


def rows_of_batch(size: int | None, tokens: int | None, length: int | None) -> int:
    """Rows of a global batch.

    Args:
        size: ``data.global_batch_size``, or None.
        tokens: ``data.global_batch_tokens``, or None.
        length: tokens in every row; None when rows differ.

    Raises:
        ConfigError: both or impossible values.
    """
    if size is not None and tokens is not None:
        raise ConfigError("data.global_batch_size and data.global_batch_tokens say the same: give one")
    if tokens is None:
        if size is not None and size < 1:
            raise ConfigError(f"data.global_batch_size must be at least 1, not {size}")
        return DEFAULT_ROWS if size is None else size
    if length is None:
        raise ConfigError("data.global_batch_tokens needs packed rows: give data.global_batch_size here")
    if tokens < 1 or tokens % length:
        raise ConfigError(f"data.global_batch_tokens {tokens} is no multiple of data.max_length {length}")
    return tokens // length


def micro_batches(rows: int, micro: int | None, ranks: int, lanes: int) -> tuple[int, int]:
    """Rows a rank handles at once, and how often it does so for one optimizer step.

    Args:
        rows: of the global batch.
        micro: ``data.micro_batch_size``; None: all rows of a rank at once.
        ranks: data ranks.
        lanes: streams the rows are drawn from.

    Raises:
        ConfigError: sizes that do not divide; the message has the numbers.
    """
    if rows % ranks:
        raise ConfigError(f"data.global_batch_size {rows} is not divisible by {ranks} data ranks")
    if micro is not None and micro < 1:
        raise ConfigError(f"data.micro_batch_size must be at least 1, not {micro}")
    micro = micro or rows // ranks
    if (rows // ranks) % micro:
        over = f" x {ranks} data ranks" if ranks > 1 else ""
        raise ConfigError(f"data.global_batch_size {rows} is not divisible by data.micro_batch_size {micro}{over}")
    if lanes % ranks:
        raise ConfigError(f"data.lanes {lanes} is not divisible by {ranks} data ranks")
    if rows % lanes and lanes % rows:
        raise ConfigError(f"data.global_batch_size {rows} and data.lanes {lanes}: one must divide the other")
    return micro, rows // ranks // micro
