"""Predictions as JSON lines, in the order of the input, written as they are made; a killed command goes on.

A line stands for a row of the input: what was predicted, or ``error`` with the reason why nothing was. So the number of
whole lines says where a killed command was. Batches hold the same rows whenever and wherever they are made, and whole
batches are done again after a kill, so the file is the same to the last byte.

Beside the file lies ``NAME.state.json``: what the predictions are of, and whether they are complete.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import lightning.pytorch as L
import torch.distributed
from lightning.pytorch.callbacks import Callback

from lightning_nlp.errors import ConfigError, DataError
from lightning_nlp.run.exit_codes import DONE, GracefulExit
from lightning_nlp.run.files import write_json
from lightning_nlp.run.ranks import data_rank

ERROR = b', "error": '
"""In a line, this is never part of a text: quotes within one are escaped."""


class PredictionWriter(Callback):
    """The first rank writes what all ranks predict, batch by batch; nothing is held in memory.

    Args:
        output: file of JSON lines.
        facts: what the predictions depend on beside data and task, such as the checkpoint; plain values.
        overwrite: begin anew, whatever is there.
    """

    def __init__(self, output: Path, facts: dict[str, Any] | None = None, *, overwrite: bool = False) -> None:
        self.output, self.facts, self.overwrite = output, facts or {}, overwrite
        self.written = self.failed = 0
        self._all: dict[str, Any] = {}
        self._stream: BinaryIO | None = None

    @property
    def state_file(self) -> Path:
        return self.output.with_name(f"{self.output.name}.state.json")

    # Where to begin -------------------------------------------------------------------------------------------

    def setup(self, trainer: L.Trainer, pl_module: Any, stage: str) -> None:
        """Find out how much is done; before the model is built.

        Raises:
            ConfigError: the output is of something else.
            GracefulExit: it is complete.
        """
        if stage != "predict":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        found: int | Exception = 0
        if trainer.is_global_zero:
            model = {f"model.{name}": value for name, value in pl_module.task_hyperparameters().items()}
            task = {"task": pl_module.task_name, "trainer.precision": trainer.precision}
            try:
                self._all = plain({**self.facts, **data.prediction_facts(), **task, **model})
                found = self._begin(data.prediction_batch_size)
            except (ConfigError, DataError, GracefulExit) as reason:
                found = reason
            except OSError as error:
                found = ConfigError(f"--output '{self.output}' cannot be written: {error.strerror}")
        found = trainer.strategy.broadcast(found)
        if isinstance(found, Exception):
            raise found
        data.predicted = found

    def _begin(self, batch: int) -> int:
        """Rows that are done: a multiple of ``batch``; the file then ends with them."""
        if self.output.is_dir():
            raise ConfigError(f"--output '{self.output}' is a directory: name a file")
        self.output.parent.mkdir(parents=True, exist_ok=True)
        if self.overwrite:
            self.output.unlink(missing_ok=True)
        if self.output.exists():
            self._check_same()
            self._keep_whole_batches(batch)
        else:
            write_json(self.state_file, {"complete": False, "of": self._all})
            self.output.touch()
        if self.written:
            print(f"going on after {self.written} predictions in {self.output}", file=sys.stderr)
        return self.written

    def _check_same(self) -> None:
        """Refuse what is not ours to go on with; stop where nothing is left to do."""
        instead = "name another --output, or add --overwrite to begin anew"
        try:
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
            before, complete = dict(state["of"]), state["complete"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ConfigError(
                f"--output '{self.output}' exists, without a readable {self.state_file.name} beside it: {instead}"
            ) from None
        names = [name for name in {**before, **self._all} if before.get(name) != self._all.get(name)]
        if names:
            name, more = names[0], f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            said = f"{name} is {before.get(name)} there, {self._all.get(name)} here{more}"
            raise ConfigError(f"--output '{self.output}' holds other predictions: {said}; {instead}")
        if complete and state["bytes"] != self.output.stat().st_size:
            raise ConfigError(f"--output '{self.output}' was changed after it was complete: {instead}")
        if complete:
            raise GracefulExit(DONE, f"{state['records']} predictions in {self.output} already: nothing to do")

    def _keep_whole_batches(self, batch: int) -> None:
        """Count whole lines, and cut off what is behind the last whole batch."""
        place = end = lines = failed = 0
        with self.output.open("rb") as stream:
            for line in stream:
                if not (line.startswith(b"{") and line.endswith(b"}\n")):  # half a line, or what a power cut left
                    break
                place, lines, failed = place + len(line), lines + 1, failed + (ERROR in line)
                if lines % batch == 0:
                    end, self.written, self.failed = place, lines, failed
        os.truncate(self.output, end)

    # Writing --------------------------------------------------------------------------------------------------

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            self._stream = self.output.open("ab")

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        lines = [(json.dumps(record, ensure_ascii=False) + "\n").encode() for record in outputs]
        for part in gathered(trainer, lines):
            assert self._stream is not None
            self._stream.write(b"".join(part))
            self.written += len(part)
            self.failed += sum(ERROR in line for line in part)
        if self._stream is not None:
            self._stream.flush()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._stream is None:
            return
        os.fsync(self._stream.fileno())
        size = self._stream.tell()
        self._stream.close()
        complete = {"complete": True, "records": self.written, "failed": self.failed, "bytes": size}
        write_json(self.state_file, {**complete, "of": self._all})

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if self._stream is not None:
            self._stream.close()


def plain(values: dict[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back, groups of settings apart: ``model.generation.beams``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return dict(json.loads(json.dumps(found, default=str)))


def gathered(trainer: L.Trainer, lines: list[bytes]) -> list[list[bytes]]:
    """On the first rank, the lines of every data rank in turn; on the others, nothing."""
    if trainer.world_size == 1:
        return [lines]
    parts: list[Any] | None = [None] * trainer.world_size if trainer.is_global_zero else None
    torch.distributed.gather_object((data_rank(trainer), lines), parts)
    by_rank = dict(reversed(parts or []))  # ranks that share their data say the same
    return [by_rank[rank] for rank in sorted(by_rank)]
