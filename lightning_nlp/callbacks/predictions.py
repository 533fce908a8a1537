"""Predictions as JSON lines, written batch by batch; nothing is held in memory."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, TextIO

import lightning.pytorch as L
from lightning.pytorch.callbacks import Callback


class PredictionWriter(Callback):
    """Every rank writes a part; the first one joins them under the final name when all are done."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.written = 0
        self._stream: TextIO | None = None

    def part(self, rank: int) -> Path:
        return self.output.with_name(f".{self.output.name}.rank-{rank}.partial")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.part(trainer.global_rank).open("w", encoding="utf-8")

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int, *args: Any
    ) -> None:
        assert self._stream is not None
        for record in outputs:
            self._stream.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._stream.flush()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert self._stream is not None
        self._stream.close()
        trainer.strategy.barrier("predictions")
        if trainer.is_global_zero:
            joined = self.part(0)
            with joined.open("a", encoding="utf-8") as stream:
                for rank in range(1, trainer.world_size):
                    stream.write(self.part(rank).read_text(encoding="utf-8"))
                    self.part(rank).unlink()
            with joined.open(encoding="utf-8") as lines:
                self.written = sum(1 for _ in lines)
            os.replace(joined, self.output)
