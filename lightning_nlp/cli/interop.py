"""`lightning-nlp import` and `export`: models of other libraries in and out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lightning_nlp.cli.listing import Arguments
from lightning_nlp.errors import ConfigError
from lightning_nlp.run.choice import FORMS

FORMATS = ("huggingface", "safetensors", "adapters")


def import_arguments() -> argparse.ArgumentParser:
    about = "Make a run out of a Hugging Face folder (config.json, safetensors, tokenizer.json)."
    parser = Arguments(prog="lightning-nlp import", description=about, allow_abbrev=False)
    parser.add_argument("--from", required=True, dest="source", metavar="HF_DIR", help="folder to read")
    parser.add_argument("--output", required=True, metavar="RUN_DIR", help="run directory to make")
    return parser


def export_arguments() -> argparse.ArgumentParser:
    about = "Write a trained model for other libraries."
    parser = Arguments(prog="lightning-nlp export", description=about, allow_abbrev=False)
    parser.add_argument("--run", required=True, help="run directory, or a checkpoint file in one")
    parser.add_argument("--checkpoint", "--ckpt_path", default="best", help=f"{FORMS} (default: best)")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--format", default="huggingface", choices=FORMATS, help="default: huggingface")
    parser.add_argument(
        "--family", help="kind of Hugging Face model (default: that of an imported run, else the first that fits)"
    )
    return parser


def size_of(folder: Path) -> str:
    """Megabytes in a folder."""
    return f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f} MB"


def origin(run: Path) -> str | None:
    """The family that an imported run came from: more than one may fit (a RoBERTa is a BERT)."""
    note = (run.parent.parent if run.is_file() else run) / "import.json"
    return str(json.loads(note.read_text())["family"]) if note.is_file() else None


def import_main(argv: list[str]) -> int:
    """Read a folder, write a run."""
    options = import_arguments().parse_args(argv)
    from lightning_nlp.cli.quiet import quieten

    quieten()
    from lightning_nlp.interop.convert import import_run

    module = import_run(options.source, options.output)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    tokenizer = "" if module.head.tokenizer is not None else "; the folder has no tokenizer.json"
    print(f"{options.output}: {type(module).__name__} with {parameters:,} parameters{tokenizer}")
    return 0


def export_main(argv: list[str]) -> int:
    """Read a run, write a folder."""
    options = export_arguments().parse_args(argv)
    if options.family and options.format != "huggingface":
        raise ConfigError(f"--family belongs to --format huggingface, not {options.format}")
    from lightning_nlp.cli.quiet import quieten

    quieten()
    from lightning_nlp.interop.convert import export_model, export_safetensors
    from lightning_nlp.loading import load, save_adapters

    module, output = load(options.run, options.checkpoint), Path(options.output)
    if options.format == "adapters":
        save_adapters(module, output)
        print(f"{output}: adapters and heads of {type(module).__name__}, {size_of(output)}; their base is not in it")
        return 0
    if options.format == "safetensors":
        export_safetensors(module, output)
        print(f"{output}: {type(module).__name__} under its own names, {size_of(output)}")
        return 0
    family = export_model(module, output, options.family or origin(Path(options.run)))
    print(f"{output}: {family.architecture}, {size_of(output)}")
    return 0
