"""The allocator is told to keep memory: measured in page faults, in a process of its own; elsewhere one line says why not."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys

import pytest

from lightning_nlp.run import allocator

PROGRAM = """
import ctypes, resource, sys
from lightning_nlp.run import allocator
if sys.argv[1] == "tuned":
    assert allocator.tune() is None
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def touch():
    block = library.malloc(ctypes.c_size_t(64 << 20))
    ctypes.memset(block, 1, 64 << 20)
    library.free(block)
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_freed_memory_is_used_again():
    pages = 5 * (64 << 20) // 4096
    assert faults("left alone") > pages / 1024  # some systems map huge pages
    assert faults("tuned") < 20


class Library:
    """A C library that has ``names``."""

    def __init__(self, *names):
        for name in names:
            setattr(self, name, self.call)

    class Call:
        restype = None

        def __call__(self, *args):
            return b"2.99" if not args else int(args[0] != -2)

    call = Call()


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (Library(), "trainer.tune_allocator has no effect here: it needs glibc"),
        (Library("mallopt"), "trainer.tune_allocator has no effect here: it needs glibc"),
        (Library("mallopt", "gnu_get_libc_version"), "trainer.tune_allocator: glibc 2.99 refused M_TOP_PAD"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(library, message, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: library)
    assert allocator.tune() == message
