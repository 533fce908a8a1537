"""A language-modelling corpus: the documentation of the standard library, one document a module."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_nlp.data.builders import stdlib


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """``(split, row)`` for every module with at least 200 characters of documentation."""
    for name, tree in stdlib.modules():
        parts = [f"{title}\n{text}" if title else text for title, text in stdlib.docstrings(tree)]
        text = "\n\n".join(parts)
        if len(text) >= 200:
            yield stdlib.split_by_name(name), {"id": name, "text": f"{name}\n\n{text}\n"}


def build(directory: Path) -> dict[str, Any]:
    """Write the corpus to ``directory``; the same Python version gives the same bytes."""
    about = {
        "name": "stdlib_docs",
        "task": "language modelling",
        "source": f"documentation strings of the standard library of Python {platform.python_version()}",
        "fields": ["id", "text"],
    }
    return stdlib.write(directory, stdlib.grouped(documents()), about)
