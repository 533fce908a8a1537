"""``lightning_nlp.load(RUN)``: a trained task, ready to use from Python."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_nlp import registry
from lightning_nlp.data.tokenizer import Tokenizer
from lightning_nlp.errors import CheckpointError, ConfigError
from lightning_nlp.run import manifest
from lightning_nlp.run.directory import RunDirectory
from lightning_nlp.tasks.initial import newest_or_best, read_checkpoint

if TYPE_CHECKING:
    from lightning_nlp.tasks.base import TaskModule


def load(run: str | Path, checkpoint: str = "best") -> TaskModule:
    """Rebuild a task with its weights and tokenizer, in evaluation mode.

    Args:
        run: a run directory, or a ``step-N.ckpt`` inside one.
        checkpoint: ``best``, ``last`` or a step number; ignored when ``run`` is a file.

    Raises:
        ConfigError: no such run or checkpoint.
        CheckpointError: damaged, or made by something else.
    """
    path = Path(run)
    if not path.exists():
        raise ConfigError(f"there is no run at '{path}'")
    file = path if path.is_file() else find(path, checkpoint)
    directory = RunDirectory(file.parent.parent)
    saved = read_checkpoint(file)
    if "task" not in saved or "hyper_parameters" not in saved:
        raise CheckpointError(f"{file} was not written by lightning_nlp")
    task = registry.load(registry.TASKS, saved["task"], "task")
    module: TaskModule = task(**saved["hyper_parameters"])
    module.configure_model()
    module.on_load_checkpoint(saved)
    module.load_state_dict(saved["state_dict"])
    if directory.tokenizer.is_file():
        tokenizer = Tokenizer.load(directory.tokenizer)
        expected = tokenizer_hash(saved)
        if expected is not None and expected != tokenizer.hash:
            raise CheckpointError(f"{directory.tokenizer} is not the tokenizer this checkpoint was trained with")
        for head in module.heads.values():
            head.tokenizer = tokenizer  # type: ignore[assignment]
    return module.eval()


def find(run: Path, checkpoint: str) -> Path:
    """The checkpoint file of a run that ``best``, ``last`` or a step number names."""
    directory = run / "checkpoints"
    report = lambda line: print(line, file=sys.stderr)  # noqa: E731
    if checkpoint == "best":
        found = newest_or_best(run)
    elif checkpoint == "last":
        found = manifest.newest_valid(directory, report)
    else:
        steps = {str(item.step): item for item in manifest.published(directory)}
        if checkpoint not in steps:
            raise ConfigError(f"run '{run}' has no checkpoint of step {checkpoint} (it has {', '.join(steps)})")
        found = steps[checkpoint]
        manifest.check(found.path)
    if found is None:
        raise ConfigError(f"run '{run}' has no checkpoint yet")
    return found.path


def tokenizer_hash(saved: dict[str, Any]) -> str | None:
    """The hash of the tokenizer a checkpoint was trained with, if its data module noted one."""
    for value in saved.values():
        if isinstance(value, dict) and isinstance(value.get("tokenizer"), str):
            return str(value["tokenizer"])
    return None
