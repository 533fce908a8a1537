"""Rows to leave out, by what is in a column; a small set of comparisons, never code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_nlp.data.sources.bad_rows import FILTERED, BadRow
from lightning_nlp.errors import ConfigError, nearest

LEFT_OUT = BadRow(FILTERED, "left out by data.filters")
Constant = str | int | float | bool


@dataclass(frozen=True)
class Filter:
    """A condition that rows must meet to be used; everything given must hold.

    Values are compared as text, so that ``1`` is also the ``1`` of a CSV file; a row without a value meets
    ``none_of`` alone.

    Attributes:
        column: of the data.
        equals: the value it has.
        one_of: the value it has is one of these.
        none_of: the value it has is none of these.
        min_length: characters of the text, at least.
        max_length: characters of the text, at most.
    """

    column: str
    equals: Constant | None = None
    one_of: list[Constant] | None = None
    none_of: list[Constant] | None = None
    min_length: int | None = None
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.max_length is not None and self.max_length < 1:
            raise ConfigError(f"data.filters: max_length must be at least 1, not {self.max_length}")
        if self.min_length is not None and self.max_length is not None and self.min_length > self.max_length:
            raise ConfigError(
                f"data.filters: '{self.column}' has min_length {self.min_length} beyond max_length {self.max_length}"
            )
        if all(getattr(self, name) is None for name in CONDITIONS):
            raise ConfigError(f"data.filters: '{self.column}' has no condition (known: {', '.join(CONDITIONS)})")

    def keeps(self, value: Any) -> bool:
        """Whether a row with this value is used."""
        text = None if value is None else str(value)
        if self.none_of is not None and text in texts(self.none_of):
            return False
        if self.equals is not None and text != str(self.equals):
            return False
        if self.one_of is not None and text not in texts(self.one_of):
            return False
        if self.min_length is None and self.max_length is None:
            return True
        return text is not None and (self.min_length or 0) <= len(text) <= (self.max_length or len(text))


def texts(values: list[Constant]) -> list[str | None]:
    """Values as they are compared."""
    return [str(value) for value in values]


CONDITIONS = ("equals", "one_of", "none_of", "min_length", "max_length")


def check_columns(filters: Sequence[Filter], known: list[str], name: str) -> None:
    """Refuse filters of columns that are not there.

    Raises:
        ConfigError: names the nearest one.
    """
    for each in filters:
        if each.column not in known:
            hint = f"{nearest(each.column, known)} (columns: {', '.join(known)[:400]})"
            raise ConfigError(f"data.filters: column '{each.column}' is not in the {name} data{hint}")
