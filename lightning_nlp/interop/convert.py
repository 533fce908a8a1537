"""Whole models in and out: a Hugging Face folder to a task of ours with its run directory, and back."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
import torch
from tokenizers import processors

import lightning_nlp
from lightning_nlp import registry
from lightning_nlp.backbone.adapters import folded_state
from lightning_nlp.backbone.config import TransformerConfig
from lightning_nlp.data.tokenizers.tokenizer import USUAL, Tokenizer
from lightning_nlp.errors import ConfigError
from lightning_nlp.interop import folder as folders
from lightning_nlp.interop.family import Family, differences
from lightning_nlp.interop.weights import convert
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
        TransformerConfig(**arguments)  # mistakes are said before gigabytes are read
    except ConfigError:
        raise
    except KeyError as error:
        raise ConfigError(f"{where / 'config.json'}: {error.args[0]} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:  # a text for a number, a list for a dictionary
        raise ConfigError(f"{where / 'config.json'}: a value has the wrong type: {error}") from None
    weights = family.tidy(folders.read_weights(where), arguments)
    config = TransformerConfig(**family.adjust(arguments, weights))
    with torch.device("meta"):
        expected = build(family, config).state_dict()
    state, left_out = convert(weights, family.weights(config), expected, family.ignored, str(where))
    tokenizer = where / "tokenizer.json"
    return Imported(family, config, state, left_out, tokenizer if tokenizer.is_file() else None)


def build(family: Family, config: TransformerConfig) -> TaskModule:
    """The task of a family, with new weights."""
    task = registry.load(registry.TASKS, family.task, "task")
    module: TaskModule = task(backbone=config)
    module.configure_model()
    return module


def import_model(path: str | Path) -> TaskModule:
    """A ready task from a Hugging Face folder, in evaluation mode; raises what :func:`read` raises."""
    return assemble(read(path))


def assemble(found: Imported) -> TaskModule:
    """The task with the weights and the tokenizer that were read."""
    module = build(found.family, found.config)
    new = [name for name in module.state_dict() if name not in found.state]
    module.load_state_dict(found.state, strict=False)
    if found.tokenizer is not None:
        tokenizer = as_it_is(found.tokenizer)
        for head in module.heads.values():
            head.tokenizer = tokenizer  # type: ignore[assignment]
        for line in folders.other_special_tokens(found.tokenizer.parent, special_tokens(tokenizer)):
            print(line, file=sys.stderr)
    for what, names in (("new, not in the folder", new), ("left out", found.left_out)):
        if names:
            print(f"{what}: {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}", file=sys.stderr)
    return module.eval()


def as_it_is(path: Path) -> Tokenizer:
    """A ``tokenizer.json`` that without rules for start and end tokens keeps to having none when it is exported again.

    Raises:
        ConfigError: it is none.
    """
    tokenizer = Tokenizer.load(path)
    if tokenizer.backend.post_processor is None:
        tokenizer.backend.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
        tokenizer = Tokenizer(tokenizer.backend)
    return tokenizer


def import_run(path: str | Path, output: str | Path) -> TaskModule:
    """Make a run directory out of a Hugging Face folder: weights as ``step-0.ckpt``, tokenizer, ``import.json``.

    Raises:
        ConfigError: ``output`` exists; and what :func:`read` raises.
    """
    found, target = read(path), Path(output)
    folders.check_empty(target)
    module = assemble(found)
    run = run_directory.create(target.parent, target.name, overwrite=target.exists())
    tokenizer: Tokenizer | None = module.head.tokenizer
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
    families: list[Family] = [registry.load(registry.FAMILIES, name, "family")() for name in names]
    reasons = []
    for family in families:
        if family.task != task:
            continue
        problems = differences(config, family)
        if not problems:
            return family
        reasons.append((len(problems), f"{family.model_type} cannot say {', '.join(problems[:4])}"))
    if not reasons:
        known = f"'{wanted}' is a {families[0].task}" if wanted else f"there are {', '.join(tasks_of(families))}"
        raise ConfigError(f"no Hugging Face family fits this {task}: {known}")
    reasons.sort(key=lambda reason: reason[0])
    nearest = "" if wanted else "no Hugging Face family fits; nearest: "
    raise ConfigError(f"{nearest}{reasons[0][1]}")


def exported_task(module: TaskModule) -> str:
    """The task that families know by the module's head: of a translation, that is sequence to sequence."""
    heads: dict[str, str] = {}
    for name in registry.FAMILIES:
        family = registry.load(registry.FAMILIES, name, "family")
        heads[family.head] = family.task
    return next((heads[head] for head in module.heads if head in heads), type(module).__name__)


def tasks_of(families: list[Family]) -> list[str]:
    """Their tasks, each once."""
    return sorted({family.task for family in families})


def export_model(module: TaskModule, output: str | Path, family: str | None = None) -> Family:
    """Write a task as a Hugging Face folder.

    Args:
        family: its name (``gpt2``, ``llama`` ...); by default the first that can express the architecture.

    Raises:
        ConfigError: no family fits, adapters cannot be merged into the weights, or ``output`` exists.
    """
    config, tokenizer = module.config, module.head.tokenizer
    chosen = family_for(config, exported_task(module), family)
    config = chosen.widened(config)
    with torch.device("meta"):
        needed = build(chosen, config).state_dict()
    state = module.state_dict()
    if module.adapter.kind != "none":
        state = folded_state(state, module.adapter, module.config)
    weights: dict[str, torch.Tensor] = {}
    for weight in chosen.weights(config):
        ours = state.get(weight.ours)
        tensor = torch.zeros(needed[weight.ours].shape) if ours is None else ours.detach().float().cpu()
        weights |= weight.write(tensor)
    special = {} if tokenizer is None else special_tokens(tokenizer)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_id", None) for name in ("bos", "eos", "pad")}
    settings = {
        "architectures": [chosen.architecture],
        "model_type": chosen.model_type,
        **SHARED,
        **ids,
        **{key: ids.get(key) if value is None else value for key, value in chosen.write(config).items()},
    }
    text = None if tokenizer is None else with_ends_added(tokenizer, config)
    folders.write_folder(Path(output), settings, weights, text, special, config.max_length)
    return chosen


def with_ends_added(tokenizer: Tokenizer, config: TransformerConfig) -> str:
    """``tokenizer.json`` that puts start and end tokens around a text by itself, as our tasks do.

    A decoder's prompt gets its start, an encoder's text both, a source its end. A tokenizer that came with rules of its
    own keeps them.
    """
    backend = tokenizers.Tokenizer.from_str(tokenizer.backend.to_str())
    bos = None if config.arrangement == "encoder_decoder" else tokenizer.bos_id
    eos = None if config.arrangement == "decoder" else tokenizer.eos_id
    first, last = ([] if number is None else [(backend.id_to_token(number), number)] for number in (bos, eos))
    if backend.post_processor is None and first + last:
        template = [*(name for name, _ in first), "$A", *(name for name, _ in last)]
        backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=first + last)
    return str(backend.to_str(pretty=True))


def export_safetensors(module: TaskModule, output: str | Path) -> None:
    """Write the weights under our own names, beside the configuration as JSON, for readers in any language.

    Raises:
        ConfigError: ``output`` exists.
    """
    tokenizer: Tokenizer | None = module.head.tokenizer
    text = None if tokenizer is None else tokenizer.backend.to_str(pretty=True)
    settings = {"task": type(module).__name__, "hyper_parameters": module.plain_hyperparameters()}
    weights = {name: value.detach().contiguous().cpu().clone() for name, value in module.state_dict().items()}
    folders.write_folder(Path(output), settings, weights, text, {}, module.config.max_length)


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """``{"pad": "<pad>", ...}`` of the special tokens a tokenizer has."""
    ids = {name: getattr(tokenizer, f"{name}_id", None) for name in USUAL}
    return {name: str(tokenizer.backend.id_to_token(number)) for name, number in ids.items() if number is not None}
