"""Light commands answer at once, and import nothing heavy."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import tomllib
import types
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

import lightning_nlp
from lightning_nlp import __main__, registry
from lightning_nlp.__main__ import main
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.cli import listing
from lightning_nlp.errors import CheckpointError, ConfigError, DataError

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


@pytest.mark.parametrize("argv", [["--help"], ["list"], ["data", "list"]], ids=" ".join)
def test_answers_at_once(argv):
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "lightning_nlp", *argv], stdout=subprocess.DEVNULL, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 0.15


def test_version_is_that_of_the_package():
    project = tomllib.loads((Path(lightning_nlp.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["version"] == lightning_nlp.__version__
    assert project["scripts"] == {"lightning-nlp": "lightning_nlp.__main__:main"}


def test_help_and_version_print(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for verb in ("fit", "validate", "test", "predict", "generate", "data", "list"):
        assert f"\n  {verb} " in text
    assert main([]) == main(["-h"]) == 0 and capsys.readouterr().out == 2 * text
    assert main(["--version"]) == main(["-V"]) == 0
    assert capsys.readouterr().out == 2 * f"lightning-nlp {lightning_nlp.__version__}\n"


@pytest.mark.parametrize("argv", [["list", "--help"], ["data", "-h"], ["data", "build", "-h"], ["generate", "-h"]])
def test_help_of_a_verb_is_returned_not_raised(argv, capsys):
    assert main(argv) == 0
    assert capsys.readouterr().out.startswith(f"usage: lightning-nlp {argv[0]} ")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a\nb"), 2, "a"),
        (DataError("rows"), 1, "rows"),
        (CheckpointError("damaged"), 1, "damaged"),
        (ConfigError(""), 2, "ConfigError"),
    ],
)
def test_errors_become_one_line_and_a_code(error, code, line, monkeypatch, capsys):
    stop(monkeypatch, error)
    assert main(["list"]) == code
    assert capsys.readouterr().err == f"lightning-nlp: error: {line}\n"


def test_interrupt_is_130_and_quiet(monkeypatch, capsys):
    stop(monkeypatch, KeyboardInterrupt())
    assert main(["list"]) == 130 and capsys.readouterr().err == ""


def test_the_code_of_a_verb_is_returned_and_arguments_reach_it(monkeypatch):
    seen = []

    def verb(argv):
        seen.append(argv)
        return 85

    monkeypatch.setattr(__main__.importlib, "import_module", lambda name: types.SimpleNamespace(main=verb))
    assert main(["fit", "-c", "x"]) == main(["data", "build"]) == 85
    assert seen == [["fit", "-c", "x"], ["build"]]


def stop(monkeypatch, error: BaseException) -> None:
    """Let every verb end with ``error``."""

    def verb(argv):
        raise error

    monkeypatch.setattr(__main__.importlib, "import_module", lambda name: types.SimpleNamespace(main=verb))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fti"], "unknown verb 'fti'; did you mean 'fit'?"),
        (["--verison"], "unknown option '--verison' before the verb; did you mean '--version'?"),
        (["list", "--jsn"], "list: unrecognized arguments: --jsn; did you mean '--json'?"),
        (["data"], "data: the following arguments are required: verb"),
        (["data", "buld", "x"], "did you mean 'build'?"),
        (["data", "build"], "data build: the following arguments are required: name"),
        (["data", "build", "stdlib_docs", "--overwrit"], "did you mean '--overwrite'?"),
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
    assert main(["list", "backbones", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["backbones"]


def test_lists_are_aligned(capsys):
    assert main(["list"]) == 0
    lists = [text.splitlines() for text in capsys.readouterr().out.split("\n\n")]
    assert {lines[0].split()[0] for lines in lists} == set(listing.LISTS)
    for title, *rows in lists:
        if not title.startswith("backbones"):
            wide = 34 if title.startswith("parts") else 26
            assert all(row[:2] == "  " and row[2] != " " and row[wide] == " " != row[wide + 1] for row in rows), title
        else:
            assert len({row.index("layers") for row in rows}) == len({row.index("M ") for row in rows}) == 1


@pytest.mark.parametrize(("argv", "code"), [(["list"], 0), (["--help"], 0), (["fti"], 2)])
def test_closed_pipe_is_no_error(argv, code):
    reading, writing = os.pipe()
    os.close(reading)  # before the command starts: it cannot win the race against `| head`
    with os.fdopen(writing) as pipe:
        command = [sys.executable, "-m", "lightning_nlp", *argv]
        done = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert done.returncode == code and len(done.stderr.splitlines()) == (code != 0)


@pytest.fixture
def build(monkeypatch):
    """`data build tiny` with a builder that writes a corpus of one row a split."""

    def write(directory: Path) -> dict:
        directory.mkdir(parents=True, exist_ok=True)
        rows = {"train": 1, "validation": 1, "test": 1}
        for split in rows:
            row = {"id": "1", "text": f"some  {split}\ntext " + 50 * "long ", "label": "letters"}
            (directory / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
        about = {"name": "tiny", "source": "thin air", "rows": rows}
        (directory / "info.json").write_text(json.dumps(about))
        return about

    monkeypatch.setitem(registry.BUILDERS, "tiny", "tiny_builder:build")
    monkeypatch.setitem(sys.modules, "tiny_builder", types.SimpleNamespace(build=write))
    return lambda *more: main(["data", "build", "tiny", *map(str, more)])


def test_build_says_what_was_written_and_builds_once(build, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LIGHTNING_NLP_DATA", str(tmp_path))
    assert build() == 0
    first, *splits, example = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path / 'tiny'}: thin air (")
    assert [line.split()[:3] for line in splits] == [[name, "1", "rows"] for name in ("train", "validation", "test")]
    assert example.startswith("  first: label: letters  text: some train text long long") and example.endswith(" ...")
    assert len(example) == len("  first: ") + 100 + len(" ...")

    (tmp_path / "tiny" / "train.jsonl").write_text("mine")
    assert build() == 0 and "exists; --overwrite" in capsys.readouterr().out
    assert (tmp_path / "tiny" / "train.jsonl").read_text() == "mine"
    assert build("--overwrite") == 0
    assert "letters" in (tmp_path / "tiny" / "train.jsonl").read_text()


def test_build_without_settings_goes_below_data(build, tmp_path, monkeypatch):
    monkeypatch.delenv("LIGHTNING_NLP_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert build() == 0 and (tmp_path / "data" / "tiny" / "info.json").is_file()


def test_build_fills_an_empty_folder(build, tmp_path):
    assert build("--output", tmp_path) == 0 and (tmp_path / "info.json").is_file()


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_build_leaves_what_is_not_its_own(more, build, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert build("--output", tmp_path / "file", *more) == 2
    assert build("--output", tmp_path, *more) == 2
    assert build("--output", tmp_path / "file" / "below", *more) == 1
    lines = capsys.readouterr().err.splitlines()
    for line, message in zip(lines, ("is a file", "holds something that is no sample", "cannot write"), strict=True):
        assert line.startswith("lightning-nlp: error: ") and message in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "mine"


def test_every_choice_of_the_backbone_is_listed():
    choices = {
        name: list(get_args(hint))
        for name, hint in get_type_hints(TransformerConfig).items()
        if get_origin(hint) is Literal and name != "sinusoid"
    }
    assert {field: list(all) for field, all in listing.PARTS.items()} == choices
    assert set(listing.PATTERNS) <= {field.name for field in dataclasses.fields(TransformerConfig)}
