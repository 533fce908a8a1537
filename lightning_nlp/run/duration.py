"""Times as people write them."""

from __future__ import annotations

import re
from datetime import timedelta

from lightning_nlp.errors import ConfigError


def parse_duration(text: str | None, key: str) -> timedelta | None:
    """``1h30m``, ``90m``, ``45s`` -> timedelta.

    Args:
        key: of the setting, for the message.

    Raises:
        ConfigError: not of that form.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text.strip())
    if not match or not any(match.groups()):
        raise ConfigError(f"{key} '{text}' is no duration: write 90m, 1h30m or 45s")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
