"""Commands that read standard input, as processes: answers before the input ends, interrupts, terminals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess

import pytest

from tests.integration import runs

pytestmark = pytest.mark.slow


def start(run, stdin, *flags):
    args = runs.command("generate", "--run", run, "--temperature", "0", *flags)
    return subprocess.Popen(
        args,
        env=runs.environment(),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell starts what it runs in the background with interrupts ignored, and so would be its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_a_pipe_is_answered_line_by_line_until_it_ends(trained):
    process = start(trained, subprocess.PIPE)
    answers = []
    for text in (b"the cat", b"a dog"):
        process.stdin.write(text + b"\n")
        process.stdin.flush()
        answers.append(process.stdout.readline())  # before anything more is written, or the end
        assert answers[-1].startswith(text)
    rest, errors = process.communicate()
    assert (process.returncode, rest, errors) == (0, b"", b"")
    once = runs.run("generate", "--run", trained, "--temperature", "0", "--prompt", "the cat", "--prompt", "a dog")
    assert once.stdout.encode() == b"".join(answers)


def test_an_interrupt_ends_a_waiting_process(trained):
    process = start(trained, subprocess.PIPE)
    process.stdin.write(b"the cat\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"the cat")
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate()
    assert (process.returncode, rest, errors) == (130, b"", b"")


def test_a_terminal_is_invited(trained):
    mine, theirs = pty.openpty()
    process = start(trained, theirs)
    os.write(mine, b"the cat\n")
    assert process.stdout.readline().startswith(b"the cat")
    os.write(mine, b"\x04")
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"a text a line; end with Ctrl-D\n> > \n")
    os.close(mine)
    os.close(theirs)
