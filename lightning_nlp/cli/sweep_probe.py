"""A process that has `fit` read command lines and tells what it said: many questions for one import of libraries."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from lightning_nlp.__main__ import main


def answer(arguments: list[str]) -> dict[str, object]:
    """Exit code and what was printed."""
    output, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(error):
        code = main(arguments)
    lines = [line for line in error.getvalue().splitlines() if line.strip()]
    return {"code": code, "output": output.getvalue() if code == 0 else "", "error": lines[-1] if lines else ""}


if __name__ == "__main__":
    for question in sys.stdin:
        print(json.dumps(answer(json.loads(question))), flush=True)
