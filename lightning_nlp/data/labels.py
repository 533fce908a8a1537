"""What a label column holds: the name of a class, several names, or a number."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from lightning_nlp.data.sources.bad_rows import BadRowError

Problem = Literal["single", "multi_label", "regression"]
UNKNOWN = -100
"""Class of a row that has none: padding."""


class SingleLabel:
    """One class of several; targets are class numbers."""

    named = True
    padding: Any = UNKNOWN

    def names(self, value: Any) -> list[str]:
        """Names of classes that a cell holds."""
        return [str(value)]

    def target(self, value: Any, numbers: dict[str, int]) -> Any:
        """What is learnt.

        Args:
            value: of the cell.
            numbers: of the classes, by name.

        Raises:
            BadRowError: a name that is none of ``numbers``, or no number.
        """
        return number_of(str(value), numbers)

    def nothing(self, numbers: dict[str, int]) -> Any:
        """A target of the right shape where none is known."""
        return 0


class MultiLabel(SingleLabel):
    """Any number of labels; targets are float32 ``[C]`` of zeros and ones, NaN for padding.

    Args:
        separator: between the names in a text; lists need none.
    """

    def __init__(self, separator: str) -> None:
        self.separator = separator

    def names(self, value: Any) -> list[str]:
        parts = value.split(self.separator) if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            parts = [parts]
        return [name for part in parts if (name := str(part).strip())]

    padding = np.float32(math.nan)

    def target(self, value: Any, numbers: dict[str, int]) -> np.ndarray:
        found = self.nothing(numbers)
        for name in self.names(value):
            found[number_of(name, numbers)] = 1.0
        return found

    def nothing(self, numbers: dict[str, int]) -> np.ndarray:
        return np.zeros(len(numbers), dtype=np.float32)


class Regression(SingleLabel):
    """A number; targets are float32, NaN for padding."""

    named = False
    padding = np.float32(math.nan)

    def target(self, value: Any, numbers: dict[str, int]) -> np.float32:
        try:
            with np.errstate(over="ignore"):
                number = np.float32(float(value))
        except OverflowError:
            number = np.float32(math.inf)
        except (TypeError, ValueError):
            raise BadRowError("wrong_type", f"label '{value}' is no number") from None
        if not np.isfinite(number):
            raise BadRowError("wrong_type", f"label '{str(value)[:40]}' is no finite number of 32 bits")
        return number

    def nothing(self, numbers: dict[str, int]) -> np.float32:
        return np.float32(0)


def number_of(name: str, numbers: dict[str, int]) -> int:
    """Number of the class called ``name``."""
    if name not in numbers:
        known = ", ".join(list(numbers)[:8])
        raise BadRowError("unknown_label", f"label '{name}', never seen in training (known: {known})")
    return numbers[name]


def natural(label: str) -> tuple[int, float, str]:
    """Numbers in numeric order, then names."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)
