"""Numbers as people read them."""

from __future__ import annotations

DECIMAL = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))
BINARY = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def compact(number: float) -> str:
    """1234 -> 1.23k."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def clock(seconds: float) -> str:
    """3725 -> 1:02:05."""
    whole = max(round(seconds), 0)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def duration(seconds: float) -> str:
    """0.0451 -> 45.1 ms."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def flops(number: float) -> str:
    """9.89e14 -> 989 TFLOP."""
    unit, name = next(((unit, name) for unit, name in DECIMAL if number >= unit), DECIMAL[-1])
    return f"{digits(number / unit)} {name}FLOP"


def size(number: float) -> str:
    """Bytes: 641728512 -> 612 MiB."""
    unit, name = next(((unit, name) for unit, name in BINARY if number >= unit), (1, "bytes"))
    return f"{digits(number / unit)} {name}"


def digits(number: float) -> str:
    """Three digits, and no power of ten: 1012.3 -> 1012."""
    return f"{number:.0f}" if number >= 99.95 else f"{number:.3g}"
