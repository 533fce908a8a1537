"""Checks of single values of a sweep's file. Each raises ConfigError: one line that begins with ``where``, the dotted
place in the file."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.run.duration import parse_duration

DEEPEST = 8
"""Lists in lists of a value."""


def only(where: str, raw: dict[str, Any], known: Iterable[str]) -> None:
    """Raises: ConfigError: a key that is not known."""
    known = list(known)
    for key in raw:
        if key not in known:
            place = f"{where}.{key}" if where else str(key)
            raise ConfigError(f"{place}: unknown key{nearest(str(key), known)} (known: {', '.join(known)})")


def needed(where: str, raw: dict[str, Any], key: str) -> Any:
    if raw.get(key) is None:
        raise ConfigError(f"{where + '.' if where else ''}{key} is required")
    return raw[key]


def mapping(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a mapping of keys to values, got {value!r}")
    return value


def text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be text, got {value!r}")
    return value


def texts(where: str, value: Any) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        raise ConfigError(f"{where} must be a list of texts, got {value!r}")
    return tuple(text(where, each) for each in values)


def choice(where: str, value: Any, known: Iterable[str]) -> str:
    known = list(known)
    if value not in known:
        raise ConfigError(f"{where} must be one of {', '.join(known)}, got '{value}'{nearest(str(value), known)}")
    return str(value)


def whole(where: str, value: Any, least: int) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1e4
    if type(value) is not int or value < least:
        raise ConfigError(f"{where} must be a whole number, at least {least}, got {value!r}")
    return value


def seconds(where: str, value: Any) -> float:
    """``90``, ``90s``, ``1h30m`` or ``1.5h`` as seconds."""
    return parse_duration(value, where).total_seconds()


def plain_value(where: str, value: Any, depth: int = 0) -> Any:
    """The value, if a command line can carry it."""
    if isinstance(value, dict):
        raise ConfigError(f"{where}: a mapping is no single value: write dotted keys")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value} is no finite number")
    if depth > DEEPEST:
        raise ConfigError(f"{where}: lists in lists, more than {DEEPEST} deep")
    for part in value if isinstance(value, list) else ():
        plain_value(where, part, depth + 1)
    if not isinstance(value, (str, int, float, bool, type(None), list)):
        raise ConfigError(f"{where}: {value!r} must be a number, text, true, false or null")
    return value
