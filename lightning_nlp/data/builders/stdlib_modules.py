"""A classification set: which standard-library package does this documentation string come from?

The label is the top-level module or package. Texts keep what they say, with one exception: the label's own name is
masked, because it would give the answer away in one word.
"""

from __future__ import annotations

import platform
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_nlp.data.builders import stdlib

CLASSES = 12
SHORTEST = 30


def texts() -> Iterator[tuple[str, str]]:
    """``(label, text)`` of every documentation string, each text once."""
    seen: set[str] = set()
    for name, tree in stdlib.modules():
        label = name.partition(".")[0]
        for _, text in stdlib.docstrings(tree):
            masked = re.sub(rf"\b{re.escape(label)}\b", "it", text, flags=re.IGNORECASE)
            if len(masked) >= SHORTEST and masked not in seen:
                seen.add(masked)
                yield label, masked


def build(directory: Path) -> dict[str, Any]:
    """Write the texts of the packages that have most of them; split by a hash of the text."""
    found = list(texts())
    common = [label for label, _ in Counter(label for label, _ in found).most_common(CLASSES)]
    rows = (
        (stdlib.split_by_name(text), {"text": text, "label": label}) for label, text in found if label in set(common)
    )
    about = {
        "name": "stdlib_modules",
        "task": "classification",
        "source": f"documentation strings of the standard library of Python {platform.python_version()}",
        "fields": ["text", "label"],
        "labels": sorted(common),
    }
    return stdlib.write(directory, stdlib.grouped(rows), about)
