"""Reading standard input line by line, from a person or from a pipe; a line that cannot be used does not end it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

from lightning_nlp.errors import ConfigError, DataError


class Over(Exception):
    """Nothing more is to be read."""


def each_line(answer: Callable[[str], None], about: str = "", *, aligned: bool = False) -> int:
    """Hand every line to ``answer``; invite for one, and say ``about`` first, only where a person types.

    Args:
        answer: may raise :class:`Over`.
        about: how to use and how to leave it.
        aligned: line n of the output answers line n of the input: an empty one, or one that cannot be used, is
            answered with an empty line.

    Returns:
        Exit code 0, at the end of the input.
    """
    person = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # bytes that are no text are a bad line, not the end
    if person and about:
        print(about, file=sys.stderr)
    number, blank = 0, aligned and not person
    while True:
        if person:
            print("> ", end="", file=sys.stderr, flush=True)
        try:
            line = sys.stdin.readline()
        except KeyboardInterrupt:
            if person:
                print(file=sys.stderr)  # the shell's prompt begins a line
            raise
        if not line:
            if person:
                print(file=sys.stderr)
            return 0
        number += 1
        text = line.rstrip("\r\n")
        try:
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise DataError("this is not UTF-8 text")
            if text.strip() or not aligned:
                answer(text)
            elif blank:
                print(flush=True)
        except Over:
            return 0
        except (ConfigError, DataError) as mistake:
            where = "" if person else f"line {number}: "
            print(f"lightning-nlp: error: {where}{str(mistake).splitlines()[0]}", file=sys.stderr, flush=True)
            if blank:
                print(flush=True)
