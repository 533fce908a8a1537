"""What a command line says before a parser has read it."""

from __future__ import annotations

from pathlib import Path


def value_of(args: list[str], flag: str) -> str | None:
    """The last value of ``flag`` in a raw command line, in either spelling."""
    value = None
    for number, arg in enumerate(args):
        if arg == flag and number + 1 < len(args):
            value = args[number + 1]
        elif arg.startswith(f"{flag}="):
            value = arg.partition("=")[2]
    return value


def config_files(args: list[str]) -> list[str]:
    """All ``-c`` files in a raw command line, in order."""
    files = []
    for number, arg in enumerate(args):
        if arg in ("-c", "--config") and number + 1 < len(args):
            files.append(args[number + 1])
        elif arg.startswith(("--config=", "-c=")):
            files.append(arg.partition("=")[2])
    return files


def first_config_stem(args: list[str]) -> str | None:
    """``configs/quickstart.yaml`` -> ``quickstart``."""
    files = config_files(args)
    return Path(files[0]).stem if files else None
