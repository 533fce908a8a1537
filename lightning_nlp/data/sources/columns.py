"""From the columns of the data to our fields: what is there, what is missing, what is none of what it should be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_nlp.data.sources.bad_rows import BadRow, Extra
from lightning_nlp.data.sources.filters import LEFT_OUT, Filter, check_columns
from lightning_nlp.errors import ConfigError, nearest

Row = dict[str, Any]
TEXTS = frozenset({"text", "text_pair", "source", "target", "prompt", "response"})
"""Fields that hold text, which may be empty."""
MAY_BE_EMPTY = TEXTS | {"messages"}
"""Objectives say what becomes of an empty one."""


class Columns:
    """Maps our fields to columns and checks values.

    Args:
        name: of the split; begins the id of a row that has none of its own.
        fields: ``{our field: column}``.
        known: all columns, where they are known before reading.
        optional: fields that may be missing.
        filters: rows to leave out.
        also: what else counts as bad.
        headed: the names of the columns stood in the first row of a file, if it has such a row.

    Raises:
        ConfigError: a field's or filter's column is not there, or there more than once.
    """

    def __init__(
        self,
        name: str,
        fields: dict[str, str],
        known: list[str] | None,
        optional: frozenset[str] = frozenset(),
        filters: Sequence[Filter] = (),
        also: frozenset[Extra] = frozenset(),
        *,
        headed: bool = False,
    ) -> None:
        self.name, self.fields, self.optional = name, fields, optional
        self._name = f"{name}:"
        self.filters, self.also = filters, also
        self._plain = "empty" not in also
        self._own_id = "id" not in fields
        self._pairs = tuple(fields.items())
        if known is None:
            return
        for field, column in fields.items():
            if column not in known and field not in optional:
                hint = f"{nearest(column, known)} (columns: {shown(known)})"
                if headed and not set(known) & set(fields.values()):
                    hint += f"; without a heading, name them: --data.reading.column_names '{names_for(fields, known)}'"
                raise ConfigError(f"data.{field}_column '{column}' is not in the {name} data{hint}")
            if known.count(column) > 1:
                raise ConfigError(f"data.{field}_column '{column}' is {known.count(column)} columns of the {name} data")
        check_columns(filters, known, name)

    @property
    def wanted(self) -> set[str]:
        """Columns that have to be read."""
        return {*self.fields.values(), "id", *(each.column for each in self.filters)}

    def row(self, number: int, values: Row | BadRow) -> Row:
        """Our fields, the row's ``number`` in the files, and an ``id``: the row's own, or split and number.

        A row that cannot be used, or is left out, has ``bad`` instead of fields: a
        :class:`~lightning_nlp.data.sources.bad_rows.BadRow`.
        """
        if isinstance(values, BadRow):
            return {"id": f"{self.name}:{number}", "number": number, "bad": values}
        identity = values.get("id") if self._own_id else None
        found: Row = {"id": f"{self._name}{number}" if identity is None else str(identity), "number": number}
        for each in self.filters:
            if not each.keeps(values.get(each.column)):
                return {**found, "bad": LEFT_OUT}
        for field, column in self._pairs:
            value = values.get(column)
            if type(value) is str and value and "\0" not in value and self._plain:  # nearly always
                found[field] = value
                continue
            if value is None and field in self.optional:
                continue
            if (bad := self._fault(field, column, value, values)) is not None:
                return {**found, "bad": bad}
            found[field] = value
        return found

    def _fault(self, field: str, column: str, value: Any, values: Row) -> BadRow | None:
        if value is None or (value == "" and field not in MAY_BE_EMPTY):
            if column not in values:
                hint = f" (columns: {shown(values)})" if values else ""  # of tables, only wanted columns are read
                return BadRow("missing_column", f"no column '{column}'{hint}")
            return BadRow("missing_value", f"column '{column}' is empty")
        if field not in TEXTS:
            return None
        if not isinstance(value, str):
            return BadRow("wrong_type", f"column '{column}' holds {type(value).__name__}, not text")
        if "\0" in value:
            return BadRow("nul_byte", f"column '{column}' holds a NUL byte")
        if "empty" in self.also and not value.strip():
            return BadRow("empty_text", f"column '{column}' is an empty text")
        return None


MOST_NAMES, LONGEST_NAME = 20, 40
"""Of columns in a message: what is no heading may be anything."""


def shown(names: Iterable[str]) -> str:
    """Names of columns for a message of one line."""
    found = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in names]
    return ", ".join(" ".join(name.split()) for name in found[:MOST_NAMES]) + ", ..." * (len(found) > MOST_NAMES)


def names_for(fields: dict[str, str], known: list[str]) -> str:
    """What the columns of a table without a heading may be called, in the likeliest order."""
    names = [*fields.values(), *(f"column{number}" for number in range(len(fields) + 1, len(known) + 1))]
    return f"[{', '.join(names[:MOST_NAMES])}]"
