"""`lightning-nlp data build NAME | list | inspect`: sample corpora, and a look at what a model will see."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from lightning_nlp import registry
from lightning_nlp.cli import data_inspect
from lightning_nlp.cli.listing import Arguments, show
from lightning_nlp.errors import ConfigError, DataError


def main(argv: list[str]) -> int:
    """Build, list or inspect."""
    about = "Sample corpora from text that is already on this machine, and a look at what a model will see."
    parser = Arguments(prog="lightning-nlp data", description=about, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=Arguments)
    verbs.add_parser("list", help="samples that can be built", allow_abbrev=False)
    build = verbs.add_parser("build", help="build a sample", allow_abbrev=False)
    build.add_argument("name", help="see `lightning-nlp data list`")
    build.add_argument("--output", help="folder (default: data/NAME, or below LIGHTNING_NLP_DATA)")
    build.add_argument("--overwrite", action="store_true", help="build again")
    look = "show what a model will see of a configuration's data; what is not listed here is as for fit"
    data_inspect.add_arguments(verbs.add_parser("inspect", help=look, description=look, allow_abbrev=False))
    if argv[:1] == ["inspect"]:
        return data_inspect.main(*parser.parse_known_args(argv))
    options = parser.parse_args(argv)
    if options.verb == "list":
        print(show("samples"))
        return 0
    return build_sample(options.name, options.output, options.overwrite)


def build_sample(name: str, output: str | None, overwrite: bool) -> int:
    """Build one sample and say what it holds."""
    function = registry.load(registry.BUILDERS, name, "sample")
    from lightning_nlp.data.sources.files import data_directory

    directory = Path(output) if output else data_directory() / name
    if directory.exists() and holds_a_sample(directory) and not overwrite:
        print(f"{directory} exists; --overwrite builds it again")
        return 0
    started = time.perf_counter()
    try:
        about = function(directory)
    except OSError as error:
        raise DataError(f"cannot write '{directory}': {error.strerror or error}") from error
    print(f"{directory}: {about['source']} ({time.perf_counter() - started:.1f} s)")
    for split, rows in about["rows"].items():
        file = directory / f"{split}.jsonl"
        print(f"  {split:<11} {rows:>7} rows  {file.stat().st_size / 1e6:6.2f} MB")
    with (directory / "train.jsonl").open(encoding="utf-8") as stream:
        print(f"  first: {excerpt(json.loads(stream.readline()))}")
    return 0


def holds_a_sample(directory: Path) -> bool:
    """Whether a sample stands there already; an empty folder is a place to build one.

    Raises:
        ConfigError: something else stands there, which is not ours to replace.
    """
    if not directory.is_dir():
        raise ConfigError(f"'{directory}' is a file: --output names a folder")
    if (directory / "info.json").is_file():
        return True
    if any(directory.iterdir()):
        raise ConfigError(f"'{directory}' holds something that is no sample: --output names another folder")
    return False


def excerpt(row: dict[str, Any], width: int = 100) -> str:
    """A row on one line, short fields first, cut at ``width`` characters."""
    fields = [(name, " ".join(str(value).split())) for name, value in row.items() if name != "id"]
    line = "  ".join(f"{name}: {value}" for name, value in sorted(fields, key=lambda field: len(field[1])))
    return line if len(line) <= width else f"{line[:width]} ..."
