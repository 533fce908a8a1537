"""Parts of a step: which of Lightning's names they are, that they add up, and what a pause leaves out."""

from __future__ import annotations

import pytest
import torch

from lightning_nlp.callbacks import step_times
from lightning_nlp.callbacks.step_times import AROUND, PARTS, DeviceClock, StepTimes, part_of


@pytest.mark.parametrize(
    ("action", "part"),
    [  # as Lightning 2.6 names them
        ("[_TrainingEpochLoop].train_dataloader_next", "data"),
        ("[Strategy]SingleDeviceStrategy.batch_to_device", "data"),
        ("[Strategy]DDPStrategy.training_step", "forward"),
        ("[Strategy]DDPStrategy.backward", "backward"),
        ("[LightningModule]CausalLM.optimizer_step", "optimizer"),
        ("save_checkpoint", "checkpoint"),
        ("[Callback]Progress.on_train_batch_end", None),
        ("[Callback]training_step", None),
        ("[_EvaluationLoop].val_next", None),
        ("[Strategy]DDPStrategy.validation_step", None),
        ("run_training_batch", None),
        ("", None),
    ],
)
def test_names_of_actions(action, part):
    assert part_of(action) == part
    assert part is None or part in PARTS


class Time:
    """A clock that is set by hand, in place of the module's ``time`` and of CUDA's events."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def event(self, enable_timing: bool) -> Event:
        assert enable_timing
        return Event(self)


class Event:
    made = 0

    def __init__(self, time: Time) -> None:
        self.time, self.at = time, -1.0
        Event.made += 1

    def record(self) -> None:
        self.at = self.time.now

    def synchronize(self) -> None:
        assert self.at >= 0

    def elapsed_time(self, other: Event) -> float:
        return (other.at - self.at) * 1e3


@pytest.fixture(params=["cpu", "cuda"])
def measured(request, monkeypatch):
    """``(times, time)`` of a device."""
    time = Time()
    monkeypatch.setattr(step_times, "time", time)
    monkeypatch.setattr(torch.cuda, "Event", time.event)
    times = StepTimes()
    times.begin(torch.device(request.param))
    assert isinstance(times.clock, DeviceClock) == (request.param == "cuda")
    return times, time


def step(
    times: StepTimes, time: Time, data: float, forward: float, backward: float, update: float, rest: float
) -> None:
    """What Lightning calls in a step."""
    times.start("[_TrainingEpochLoop].train_dataloader_next")
    time.now += data
    times.stop("[_TrainingEpochLoop].train_dataloader_next")
    with times.profile("run_training_batch"), times.profile("[LightningModule]CausalLM.optimizer_step"):
        with times.profile("[Strategy]SingleDeviceStrategy.training_step"):
            time.now += forward
        with times.profile("[Strategy]SingleDeviceStrategy.backward"):
            time.now += backward
        time.now += update
    with times.profile("[Callback]Progress.on_train_batch_end"):
        time.now += rest


def test_parts_add_up_and_belong_to_the_innermost(measured):
    times, time = measured
    step(times, time, 1, 2, 3, 4, 5)
    step(times, time, 10, 20, 30, 40, 50)
    found = times.read()
    expected = {"data": 11, "forward": 22, "backward": 33, "optimizer": 44, "checkpoint": 0, AROUND: 55}
    assert found == pytest.approx(expected)
    assert times.read() == dict.fromkeys(PARTS, 0.0)  # since the last call
    step(times, time, 1, 1, 1, 1, 1)
    assert sum(times.read().values()) == pytest.approx(5)


def test_a_pause_leaves_out_what_is_called_within(measured):
    times, time = measured
    step(times, time, 1, 1, 1, 1, 1)
    times.pause()
    time.now += 100
    with times.profile("[Strategy]SingleDeviceStrategy.batch_to_device"):
        time.now += 100
    times.resume()
    with times.profile("save_checkpoint"):
        time.now += 7
    found = times.read()
    assert found["checkpoint"] == pytest.approx(7)
    assert sum(found.values()) == pytest.approx(12)


def test_an_error_closes_its_parts(measured):
    times, time = measured
    with pytest.raises(ValueError), times.profile("[LightningModule]CausalLM.optimizer_step"):
        time.now += 1
        raise ValueError
    time.now += 2
    found = times.read()
    assert (found["optimizer"], found[AROUND]) == pytest.approx((1, 2))


def test_events_are_used_again(measured):
    times, time = measured
    Event.made = 0
    for _ in range(3):
        step(times, time, 1, 1, 1, 1, 1)
        times.read()
    made = Event.made
    for _ in range(5):
        step(times, time, 1, 1, 1, 1, 1)
        times.read()
    assert Event.made == made


def test_nothing_is_measured_before_the_beginning_and_after_the_end():
    times = StepTimes()
    with times.profile("save_checkpoint"):
        times.pause()
        times.resume()
    assert times.read() == dict.fromkeys(PARTS, 0.0)
    times.begin(torch.device("cpu"))
    times.end()
    times.start("save_checkpoint")
    times.stop("save_checkpoint")
    assert times.read() == dict.fromkeys(PARTS, 0.0)
