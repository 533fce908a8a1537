"""Times as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

from lightning_nlp.errors import ConfigError

NUMBER = r"(\d+(?:\.\d+)?)"
FORM = re.compile(rf"(?:{NUMBER}\s*d)?\s*(?:{NUMBER}\s*h)?\s*(?:{NUMBER}\s*m)?\s*(?:{NUMBER}\s*s?)?")


def parse_duration(value: str | float, key: str) -> timedelta:
    """``90``, ``90s``, ``15m``, ``1h30m``, ``1.5h`` or ``1d`` -> timedelta.

    Args:
        value: a number is one of seconds.
        key: of the setting, for the message.

    Raises:
        ConfigError: not of that form, or no time at all.
    """
    match = None if isinstance(value, bool) else FORM.fullmatch(str(value).strip())
    try:
        days, hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0,) * 4
        found = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        found = timedelta()
    if not found:
        raise ConfigError(f"{key} {value!r} is no duration: write 90s, 15m, 1h30m, 1.5h or 1d")
    return found
