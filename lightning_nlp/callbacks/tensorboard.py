"""TensorBoard events straight in the run directory, without repeated points after a resume."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard.summary import hparams


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger without ``version_N`` folders and stray ``hparams.yaml``."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(str(directory), name="", version="", default_hp_metric=False)

    def purge_after(self, step: int) -> None:
        """Hide points of steps that a killed process logged beyond ``step``; before anything is written."""
        if step > 0:
            self._kwargs["purge_step"] = step + 1

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        """All scalars of a step in one event: an event each costs more than most of what is logged.

        What is no number (a dictionary of several) goes Lightning's way.
        """
        plain = {name: value for name, value in metrics.items() if not isinstance(value, dict)}
        values = [Summary.Value(tag=name, simple_value=float(value)) for name, value in plain.items()]
        self.experiment._get_file_writer().add_summary(Summary(value=values), step)
        if rest := {name: value for name, value in metrics.items() if name not in plain}:
            super().log_metrics(rest, step)

    def save(self) -> None:
        """Flush events only: the run's configuration is in ``config.<verb>.yaml``."""
        if self._experiment is not None:
            self._experiment.flush()

    def log_hyperparams(self, params: Any = None, metrics: Any = None, step: int | None = None) -> None:
        """Lightning's call is ignored: it would write the values of one module, without metrics."""

    def write_hyperparameters(self, values: dict[str, Any], metrics: list[str]) -> None:
        """Fill in TensorBoard's HParams tab: ``values`` of this run beside the scalars named in ``metrics``."""
        flat = {name: value for name, value in flatten(values).items() if isinstance(value, (bool, int, float, str))}
        experiment, start, end = hparams(flat, dict.fromkeys(metrics, 0.0))
        for summary in (experiment, start, end):
            self.experiment.file_writer.add_summary(summary)


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """``{"optimizer": {"lr": 1}}`` -> ``{"optimizer/lr": 1}``."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}/")
        else:
            flat[prefix + name] = value
    return flat
