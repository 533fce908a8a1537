"""Keeping freed memory in the process: on a CPU, fresh pages cost a tenth of a training step.

glibc gives large blocks back to the system when they are freed, and the next step touches (and the kernel zeroes) new
pages for every activation. ``benchmarks/train_step.py`` measures what it is worth; the price is a resident memory that
stays at its peak.
"""

from __future__ import annotations

import ctypes

SETTINGS = (
    (-3, 1 << 30, "M_MMAP_THRESHOLD"),  # below this size, blocks come from the heap, which is kept
    (-1, (1 << 31) - 1, "M_TRIM_THRESHOLD"),  # free memory at the top of the heap from which on it is given back
    (-2, 64 << 20, "M_TOP_PAD"),  # by how much the heap grows at a time
)
"""``(parameter, bytes, name)`` of mallopt(3), as in glibc's malloc.h."""


def tune() -> str | None:
    """Tell this process's allocator to keep what is freed.

    Returns:
        None when done, else one line that says why nothing was changed.
    """
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version.restype = ctypes.c_char_p
        version, mallopt = library.gnu_get_libc_version().decode(), library.mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS; Windows has no global namespace to open
        return "trainer.tune_allocator has no effect here: it needs glibc"
    refused = [name for parameter, size, name in SETTINGS if not mallopt(parameter, size)]
    if refused:
        return f"trainer.tune_allocator: glibc {version} refused {', '.join(refused)}"
    return None
