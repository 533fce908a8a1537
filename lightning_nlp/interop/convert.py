"""Whole models in and out: a Hugging Face folder to a task of ours with its run directory, and back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import lightning_nlp
from lightning_nlp import registry
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.data.tokenizer import USUAL, Tokenizer
from lightning_nlp.errors import ConfigError
from lightning_nlp.interop import folder as folders
from lightning_nlp.interop.family import Family, differences
from lightning_nlp.interop.weights import check_shapes, convert
from lightning_nlp.run import directory as run_directory
from lightning_nlp.run import manifest
from lightning_nlp.run.files import write_json

if TYPE_CHECKING:
    from lightning_nlp.tasks.base import TaskModule

SHARED = {"transformers_version": "5.0.0", "dtype": "float32"}


@dataclass
class Imported:
    """A model read from a folder."""

    family: Family
    config: TransformerConfig
    state: dict[str, torch.Tensor]
    """By our names; without the head's when the folder holds a bare backbone."""
    left_out: list[str]
    """Tensors of the folder that nothing here corresponds to, and that the family knows to be dispensable."""
    tokenizer: Path | None


def family_of(settings: dict[str, Any], where: Path) -> Family:
    """The family a ``config.json`` belongs to.

    Raises:
        ConfigError: none that is known.
    """
    try:
        found: Family = registry.load(registry.FAMILIES, settings["model_type"], "model_type")()
    except ConfigError as mistake:
        raise ConfigError(f"{where / 'config.json'}: {mistake}") from None
    return found


def read(path: str | Path) -> Imported:
    """Read a Hugging Face folder as configuration and weights of ours.

    Raises:
        ConfigError: no such folder, an unknown family, or settings that are not here.
        CheckpointError: weights that are damaged, missing, unexpected or misshapen, by name.
    """
    where = Path(path)
    if not where.is_dir():
        raise ConfigError(f"there is no folder '{where}'")
    settings = folders.read_settings(where)
    family = family_of(settings, where)
    try:
        arguments = family.read(settings)
    except KeyError as error:
        raise ConfigError(f"{where / 'config.json'}: {error.args[0]} is missing") from None
    weights = family.tidy(folders.read_weights(where), settings)
    config = TransformerConfig(**family.adjust(arguments, weights))
    table = family.weights(config)
    state, left_out = convert(weights, table, family.ignored, str(where))
    tokenizer = where / "tokenizer.json"
    found = Imported(family, config, state, left_out, tokenizer if tokenizer.is_file() else None)
    with torch.device("meta"):
        expected = build(found).state_dict()
    check_shapes(state, expected, table, str(where))
    return found


def build(found: Imported) -> TaskModule:
    """The task of a family, with new weights."""
    task = registry.load(registry.TASKS, found.family.task, "task")
    module: TaskModule = task(backbone=found.config)
    module.configure_model()
    return module


def import_model(path: str | Path) -> TaskModule:
    """A ready task from a Hugging Face folder, in evaluation mode; raises what :func:`read` raises."""
    found = read(path)
    return assemble(found)


def assemble(found: Imported) -> TaskModule:
    """The task with the weights and the tokenizer that were read."""
    module = build(found)
    new = [name for name in module.state_dict() if name not in found.state]
    module.load_state_dict(found.state, strict=False)
    if found.tokenizer is not None:
        for head in module.heads.values():
            head.tokenizer = Tokenizer.load(found.tokenizer)  # type: ignore[assignment]
    for what, names in (("new, not in the folder", new), ("left out", found.left_out)):
        if names:
            print(f"{what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}", file=sys.stderr)
    return module.eval()


def import_run(path: str | Path, output: str | Path) -> TaskModule:
    """Make a run directory out of a Hugging Face folder: weights as ``step-0.ckpt``, tokenizer, ``import.json``.

    Raises:
        ConfigError: ``output`` exists; and what :func:`read` raises.
    """
    found, target = read(path), Path(output)
    folders.check_empty(target)
    module = assemble(found)
    run = run_directory.create(target.parent, target.name, overwrite=target.exists())
    tokenizer = None if found.tokenizer is None else Tokenizer.load(found.tokenizer)
    if tokenizer is not None:
        tokenizer.save(run.tokenizer)
    checkpoint: dict[str, Any] = {"state_dict": module.state_dict(), "global_step": 0, "epoch": 0}
    module.on_save_checkpoint(checkpoint)
    if tokenizer is not None:
        checkpoint["data"] = {"tokenizer": tokenizer.hash}
    run.checkpoints.mkdir(parents=True)
    final = manifest.checkpoint_path(run.checkpoints, 0)
    partial = manifest.partial_path(final)
    torch.save(checkpoint, partial)
    versions = {"lightning_nlp": lightning_nlp.__version__, "torch": torch.__version__}
    facts = {"step": 0, "tokens": 0, "metrics": {}, "versions": versions}
    manifest.publish(partial, final, {**facts, "tokenizer": tokenizer.hash if tokenizer else None})
    origin = {"from": str(Path(path).resolve()), "family": found.family.model_type, "left_out": found.left_out}
    write_json(run.path / "import.json", origin)
    run.write_status("imported", step=0, code=0)
    return module


def family_for(config: TransformerConfig, task: str, wanted: str | None) -> Family:
    """The family that can express ``config``; the first of the known ones unless ``wanted`` names it.

    Raises:
        ConfigError: none can; says what stands in the way.
    """
    names = [wanted] if wanted else list(registry.FAMILIES)
    reasons = []
    for name in names:
        family: Family = registry.load(registry.FAMILIES, name, "family")()
        problems = [f"its task is {family.task}"] if family.task != task else differences(config, family)
        if not problems:
            return family
        reasons.append((len(problems), f"{name} cannot say {', '.join(problems[:4])}"))
    reasons.sort(key=lambda reason: reason[0])
    raise ConfigError(f"no Hugging Face family fits this {task}; nearest: {reasons[0][1]}")


def export_model(module: TaskModule, output: str | Path, family: str | None = None) -> Family:
    """Write a task as a Hugging Face folder.

    Args:
        family: its name (``gpt2``, ``llama`` ...); by default the first that can express the architecture.

    Raises:
        ConfigError: no family fits, or ``output`` exists.
    """
    chosen = family_for(module.config, type(module).__name__, family)
    state = module.state_dict()
    weights: dict[str, torch.Tensor] = {}
    for weight in chosen.weights(module.config):
        weights |= weight.write(state[weight.ours].detach().float().cpu())
    tokenizer: Tokenizer | None = module.head.tokenizer
    special = {} if tokenizer is None else special_tokens(tokenizer)
    ids = {} if tokenizer is None else {f"{name}_token_id": getattr(tokenizer, f"{name}_id", None) for name in special}
    settings = {
        "architectures": [chosen.architecture],
        "model_type": chosen.model_type,
        **SHARED,
        **ids,
        **chosen.write(module.config),
    }
    text = None if tokenizer is None else tokenizer.backend.to_str(pretty=True)
    folders.write_folder(Path(output), settings, weights, text, special)
    return chosen


def export_safetensors(module: TaskModule, output: str | Path) -> None:
    """Write the weights under our own names, beside the configuration as JSON, for readers in any language.

    Raises:
        ConfigError: ``output`` exists.
    """
    tokenizer: Tokenizer | None = module.head.tokenizer
    text = None if tokenizer is None else tokenizer.backend.to_str(pretty=True)
    settings = {"task": type(module).__name__, "hyper_parameters": module.plain_hyperparameters()}
    weights = {name: value.detach().contiguous().cpu().clone() for name, value in module.state_dict().items()}
    folders.write_folder(Path(output), settings, weights, text, {})


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """``{"pad": "<pad>", ...}`` of the special tokens a tokenizer has."""
    ids = {name: getattr(tokenizer, f"{name}_id", None) for name in USUAL}
    return {name: str(tokenizer.backend.id_to_token(number)) for name, number in ids.items() if number is not None}
