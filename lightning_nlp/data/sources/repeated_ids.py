"""Rows whose id an earlier row has already."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np


def repeated(rows: Iterable[dict[str, Any]]) -> frozenset[int]:
    """Numbers (in the files) of all rows but the first of every id; 16 bytes a row are held meanwhile."""
    hashes, numbers = array("Q"), array("Q")
    for row in rows:
        digest = hashlib.blake2b(row["id"].encode(errors="surrogatepass"), digest_size=8).digest()
        hashes.append(int.from_bytes(digest))
        numbers.append(row["number"])
    _, first = np.unique(np.frombuffer(hashes, np.uint64), return_index=True)
    later = np.ones(len(hashes), dtype=bool)
    later[first] = False
    return frozenset(np.frombuffer(numbers, np.uint64)[later].tolist())
