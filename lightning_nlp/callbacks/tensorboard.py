"""TensorBoard events straight in the run directory, without repeated points after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger without ``version_N`` folders and stray ``hparams.yaml``."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(str(directory), name="", version="", default_hp_metric=False)

    def purge_after(self, step: int) -> None:
        """Hide points of steps that a killed process logged beyond ``step``; before anything is written."""
        if step > 0:
            self._kwargs["purge_step"] = step + 1

    def save(self) -> None:
        """Flush events only: the run's configuration is in ``config.<verb>.yaml``."""
        if self._experiment is not None:
            self._experiment.flush()

    def log_hyperparams(self, params: Any = None, metrics: Any = None, step: int | None = None) -> None:
        """Written once by the log callback when the run ends, with its final metrics; not before."""
