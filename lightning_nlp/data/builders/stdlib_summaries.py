"""A summarisation set: what a documentation string explains -> the line it begins with."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_nlp.data.builders import stdlib

SHORTEST, LONGEST = 60, 600
"""Letters of an explanation."""


def pairs() -> Iterator[tuple[str, str]]:
    """``(explanation, first line)``, each explanation once; lines that end a sentence in its middle are left out."""
    seen: set[str] = set()
    for _, tree in stdlib.modules():
        for _, text in stdlib.docstrings(tree):
            summary, _, rest = text.partition("\n\n")
            document = " ".join(rest.split())
            if "\n" in summary or not SHORTEST <= len(document) <= LONGEST or document in seen:
                continue
            if 10 <= len(summary) <= 100:
                seen.add(document)
                yield document, summary


def build(directory: Path) -> dict[str, Any]:
    """Write the pairs, split by a hash of the explanation."""
    rows = (
        (stdlib.split_by_name(document), {"document": document, "summary": summary}) for document, summary in pairs()
    )
    about = {
        "name": "stdlib_summaries",
        "task": "summarisation",
        "source": f"documentation strings of the standard library of Python {platform.python_version()}",
        "fields": ["document", "summary"],
    }
    return stdlib.write(directory, stdlib.grouped(rows), about)
