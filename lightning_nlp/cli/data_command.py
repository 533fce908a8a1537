"""`lightning-nlp data build NAME | list`: sample corpora from text that is already on this machine."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from lightning_nlp import registry
from lightning_nlp.cli.listing import show
from lightning_nlp.errors import ConfigError


class Arguments(argparse.ArgumentParser):
    """argparse with one-line errors."""

    def error(self, message: str) -> Any:
        raise ConfigError(f"data: {message}")


def main(argv: list[str]) -> int:
    """Build or list."""
    parser = Arguments(prog="lightning-nlp data", description=__doc__, allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=Arguments)
    verbs.add_parser("list", help="samples that can be built", allow_abbrev=False)
    build = verbs.add_parser("build", help="build a sample", allow_abbrev=False)
    build.add_argument("name")
    build.add_argument("--output", help="folder (default: data/NAME, or below LIGHTNING_NLP_DATA)")
    build.add_argument("--overwrite", action="store_true", help="build again")
    options = parser.parse_args(argv)
    if options.verb == "list":
        print(show("samples"))
        return 0
    return build_sample(options.name, options.output, options.overwrite)


def build_sample(name: str, output: str | None, overwrite: bool) -> int:
    """Build one sample and say what it holds."""
    function = registry.load(registry.BUILDERS, name, "sample")
    from lightning_nlp.data.files import data_directory

    directory = Path(output) if output else data_directory() / name
    if directory.exists() and not overwrite:
        print(f"{directory} exists; --overwrite builds it again")
        return 0
    if directory.exists() and not (directory / "info.json").is_file() and any(directory.iterdir()):
        raise ConfigError(f"'{directory}' holds something that is no sample: --overwrite will not delete it")
    started = time.perf_counter()
    about = function(directory)
    print(f"{directory}: {about['source']} ({time.perf_counter() - started:.1f} s)")
    for split, rows in about["rows"].items():
        file = directory / f"{split}.jsonl"
        print(f"  {split:<11} {rows:>7} rows  {file.stat().st_size / 1e6:6.2f} MB")
    with (directory / "train.jsonl").open(encoding="utf-8") as stream:
        first = json.loads(stream.readline())
    print(f"  first: {str(first)[:100]} ...")
    return 0
