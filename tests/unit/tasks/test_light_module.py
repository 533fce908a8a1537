"""The lighter LightningModule does what Lightning's does."""

from __future__ import annotations

import inspect

import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn

from lightning_nlp import CausalLM
from lightning_nlp.tasks.light_module import LightModule


class Own(LightModule):
    def training_step(self, batch, batch_idx, *, more=1):
        """A step."""


class Short(Own):
    def training_step(self, batch):
        """Does not ask for the number."""


def test_attributes_are_still_parameters_modules_and_notes():
    module = Own()
    module.weight, module.layer, module.number = nn.Parameter(torch.ones(2)), nn.Linear(2, 2), 3
    module._current_fx_name = "training_step"
    assert {name for name, _ in module.named_parameters()} == {"weight", "layer.weight", "layer.bias"}
    assert (module.number, module._current_fx_name) == (3, "training_step")
    module._current_fx_name = None
    assert module._current_fx_name is None


def test_batches_move_as_lightning_moves_them():
    batch = {"tokens": torch.ones(2, 3), "example_ids": [["a"], []], "task": "lm", "padding": (1, 6)}
    module = Own()
    for given in (batch, [torch.ones(1)], (torch.ones(1), {"x": torch.ones(2)})):
        found = module.transfer_batch_to_device(given, torch.device("meta"), 0)
        expected = move_data_to_device(given, torch.device("meta"))
        assert str(found) == str(expected) and type(found) is type(given)
    assert module.transfer_batch_to_device(batch, torch.device("cpu"), 0)["tokens"] is batch["tokens"]


def test_arguments_of_the_step_are_known():
    for kind in (Own, Short, CausalLM):
        step = kind.__new__(kind).training_step
        plain = inspect.Signature.from_callable(type(step.__self__).training_step)
        assert list(inspect.signature(step).parameters) == list(plain.parameters)[1:]
    assert is_param_in_hook_signature(Own().training_step, "batch_idx")
    assert not is_param_in_hook_signature(Short().training_step, "batch_idx", min_args=2)
