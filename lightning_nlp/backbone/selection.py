"""Modules and parameters chosen by patterns of their names: what adapters go to, what is frozen.

Patterns are shell patterns (``fnmatch``; ``*`` also goes over dots) of a name, or of the end of one after a dot.
They stand for what has that name and everything inside: ``feedforward``, ``layers.0``, ``attention.query_key_value``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from lightning_nlp.errors import ConfigError


def matches(pattern: str, name: str) -> bool:
    """True when ``pattern`` stands for ``name``, or for a module it is inside of."""
    parts = name.split(".")
    above = (".".join(parts[: end + 1]) for end in range(len(parts)))
    return any(fnmatchcase(one, pattern) or fnmatchcase(one, f"*.{pattern}") for one in above)


def select(patterns: Iterable[str], names: Iterable[str], key: str) -> list[str]:
    """The names that patterns stand for, in their own order.

    Args:
        key: the setting that holds the patterns, for the message.

    Raises:
        ConfigError: a pattern stands for nothing; names it and those near it.
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        hits = [name for name in names if matches(pattern, name)]
        if not hits:
            raise ConfigError(f"{key}: '{pattern}' matches nothing{near(pattern, names)}")
        found.update(hits)
    return [name for name in names if name in found]


def near(pattern: str, names: list[str]) -> str:
    """``"; near: 'attention.output', ..."``: ends of names that look like ``pattern``, else what ends there are."""
    ends: dict[str, None] = {}
    for name in names:
        parts = name.split(".")
        for length in (2, 1, 3):
            end = parts[-length:]
            if len(end) == length and not any(part.isdigit() for part in end):
                ends[".".join(end)] = None
    close = difflib.get_close_matches(pattern.strip("*."), ends, n=3, cutoff=0.6)
    if close:
        return "; near: " + ", ".join(f"'{end}'" for end in close)
    known = [end for end in ends if end.count(".") == 1]
    return f" (there are: {', '.join(known[:8])}{' ...' if len(known) > 8 else ''})"
