"""Light commands answer at once, and import nothing heavy."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lightning_nlp import registry
from lightning_nlp.__main__ import main
from lightning_nlp.cli import listing

HEAVY = {"torch", "lightning", "datasets", "transformers", "numpy", "tokenizers", "jsonargparse", "torchmetrics"}
LIGHT = [["--help"], ["--version"], ["list"], ["list", "backbones"], ["data", "list"], ["fti"], ["list", "taks"]]


@pytest.mark.parametrize("argv", LIGHT, ids=" ".join)
def test_imports_nothing_heavy(argv):
    code = (
        f"import sys; from lightning_nlp.__main__ import main; main({argv!r}); "
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_and_version_print(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in ("fit", "validate", "test", "predict", "generate", "data", "list"):
        assert f"\n  {verb} " in text
    assert main(["--version"]) == 0 and capsys.readouterr().out.startswith("lightning-nlp 0.")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fti"], "unknown verb 'fti'; did you mean 'fit'?"),
        (["list", "taks"], "there is no list of 'taks'; did you mean 'tasks'?"),
        (["data", "build", "stdlib_doc"], "unknown sample 'stdlib_doc'; did you mean 'stdlib_docs'?"),
        (["generate", "--run", "x", "--promt", "y"], "generate: unrecognized arguments: --promt y"),
        (["generate"], "generate: the following arguments are required: --run"),
        (["generate", "--run", "absent", "--prompt", "x"], "there is no run at 'absent'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(argv, message, capsys):
    assert main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lightning-nlp: error: ") and message in line


def test_everything_registered_is_listed_described_and_there(capsys):
    for what, names in listing.REGISTRIES.items():
        assert [row["name"] for row in listing.entries(what)] == list(names)
        for name in names:
            assert callable(registry.load(names, name))
    assert main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    base = next(row for row in found["backbones"] if row["name"] == "base")
    assert 120e6 < base["parameters"] < 126e6


def test_closed_pipe_is_no_error():
    command = f"{sys.executable} -m lightning_nlp list | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stdout.strip() == "tasks" and done.stderr == ""
