"""All scalars of a step in one event, as TensorBoard reads them."""

from __future__ import annotations

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

from lightning_nlp.callbacks.tensorboard import RunTensorBoard


def test_one_event_a_step_holds_all_values(tmp_path):
    logger = RunTensorBoard(tmp_path)
    logger.log_metrics({"train/loss": 2.5, "train/tokens": 1234, "val/loss": torch.tensor(1.5)}, step=10)
    logger.log_metrics({"train/loss": 2.0}, step=20)
    logger.finalize("success")
    (file,) = tmp_path.glob("events.*")
    steps = [event.step for event in LegacyEventFileLoader(str(file)).Load() if event.HasField("summary")]
    assert steps == [10, 20]
    events = EventAccumulator(str(tmp_path)).Reload()
    found = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found == {"train/loss": [(10, 2.5), (20, 2.0)], "train/tokens": [(10, 1234.0)], "val/loss": [(10, 1.5)]}


def test_a_dictionary_of_values_goes_lightnings_way(tmp_path):
    logger = RunTensorBoard(tmp_path)
    logger.log_metrics({"plain": 1.0, "several": {"a": 1.0, "b": 2.0}}, step=1)
    logger.finalize("success")
    assert any("several" in str(path) for path in tmp_path.rglob("events.*"))
    with pytest.raises((TypeError, ValueError)):
        logger.log_metrics({"text": "no number"}, step=2)
