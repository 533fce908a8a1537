"""What data has in common whose examples mean nothing in parts: rows hold whole ones, chosen to fit."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lightning_nlp.data.module import TextDataModule
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.directory import RunDirectory


class WholeRowsData(TextDataModule):
    """Examples for decoders, none longer than a row and none cut over two: what is predicted sees what was given.

    Args:
        path: see :class:`~lightning_nlp.data.module.TextDataModule`, as for all other arguments.
        rows: several examples in a row, each its own segment, or one a row.
    """

    whole: ClassVar[bool] = True
    task: ClassVar[str] = "lm"

    def __init__(
        self, path: str | list[str] | None = None, *, rows: Literal["packed", "single"] = "packed", **kwargs: Any
    ) -> None:
        self.packed = rows == "packed"  # type: ignore[misc]  # a choice here
        super().__init__(path, packing="first_fit", **kwargs)

    def settle(self, run: RunDirectory | None) -> None:
        if self.remembers:
            raise ConfigError("backbone.memory_length needs text that goes on from row to row: these examples do not")
