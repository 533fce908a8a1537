"""What must hold for each optimizer by name: exact after a resume, in every precision, at zero gradients."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.config import SETTINGS, OptimizerConfig, ParameterRule
from lightning_nlp.optim.master_weights import MasterWeights
from lightning_nlp.optim.optimizers import build_optimizer
from lightning_nlp.optim.restoring import apply_hyperparameters

NAMES = list(registry.OPTIMIZERS)
MORE = {"sgd": {"momentum": 0.9}, "adafactor": {"momentum": 0.9}}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.norm = nn.LayerNorm(4)

    def forward(self) -> torch.Tensor:
        x = self.embedding(torch.arange(7))
        for layer in self.layers:
            x = x + layer(x).tanh()
        return self.norm(x).square().mul(torch.arange(4)).mean()


def inside(name: str) -> tuple[int, ...] | None:
    return () if name.startswith("layers.") else None


def built(module: nn.Module, name: str, **settings) -> torch.optim.Optimizer:
    return build_optimizer(
        module, OptimizerConfig(name, **{"lr": 0.05, **MORE.get(name, {}), **settings}), matrices=inside
    )


def step(module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    module().backward()
    optimizer.step()


def test_every_optimizer_has_settings():
    assert set(SETTINGS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(name):
    module = Network()
    optimizer = built(module, name)
    before = module().item()
    for _ in range(20):
        step(module, optimizer)
    assert module().item() < 0.9 * before


@pytest.mark.parametrize("name", NAMES)
def test_steps_after_saving_and_loading_are_bit_equal(name):
    straight = Network()
    optimizer = built(straight, name)
    for _ in range(3):
        step(straight, optimizer)
    file = io.BytesIO()
    torch.save({"weights": straight.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    resumed = Network()
    resumed.load_state_dict(saved["weights"])
    again = built(resumed, name)
    again.load_state_dict(saved["optimizer"])
    apply_hyperparameters(again, OptimizerConfig(name, **{"lr": 0.05, **MORE.get(name, {})}))
    for _ in range(3):
        step(straight, optimizer)
        step(resumed, again)
    for left, right in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)
    assert str(optimizer.state_dict()) == str(again.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_moves_at_zero_gradients_and_rate_zero(name):
    """How distributed checkpoints make an optimizer allocate its state before they fill it."""
    module = Network()
    before = copy.deepcopy(module.state_dict())
    optimizer = built(module, name)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_from_float32_masters(name):
    module, plain = Network(), Network()
    weights, optimizer, other = MasterWeights(module), built(module, name), built(plain, name)
    losses, expected = [], []
    for _ in range(10):
        optimizer.zero_grad()
        with weights.computing():
            loss = module()
            assert module.layers[0].weight.dtype == torch.bfloat16
        loss.backward()
        optimizer.step()
        weights.changed()
        losses.append(loss.item())
        expected.append(plain().item())
        step(plain, other)
    assert all(p.dtype == torch.float32 and p.grad.dtype == torch.float32 for p in module.parameters())
    assert all(
        value.dtype == torch.float32
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    assert losses == pytest.approx(expected, rel=0.05) and losses[-1] < losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_clipped_without_the_loss_scale_of_fp16(name):
    norms, weights = {}, {}
    for scale in (1.0, 1024.0):
        module = Network()
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
        optimizer = built(module, name)

        def closure(module=module, scaler=plugin.scaler):
            loss = module()
            scaler.scale(loss).backward()
            return loss

        def clip(*_, module=module, scale=scale):
            norms[scale] = float(nn.utils.get_total_norm([value.grad for value in module.parameters()]))

        plugin._after_closure = clip
        shell = nn.Module()
        shell.automatic_optimization = True
        plugin.optimizer_step(optimizer, model=shell, closure=closure)
        weights[scale] = module.layers[0].weight.detach()
    assert norms[1024.0] == pytest.approx(norms[1.0]) and norms[1.0] > 0
    torch.testing.assert_close(weights[1024.0], weights[1.0])


@pytest.mark.parametrize("name", NAMES)
def test_a_closure_is_called_with_gradients_and_its_loss_returned(name):
    module = Network()
    optimizer = built(module, name)

    def closure():
        loss = module()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == Network()().item()


def names_of(optimizer, module):
    of = {id(parameter): name for name, parameter in module.named_parameters()}
    return [[of[id(parameter)] for parameter in group["params"]] for group in optimizer.param_groups]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [{"match": "layers.1", "lr_scale": 0.5, "weight_decay": 0.2}]),
        ([{"match": "layers.1", "lr_scale": 0.5}], []),
        ([{"match": "layers.1"}, {"match": "norm"}], [{"match": "*.bias", "lr_scale": 3.0}]),
    ],
)
def test_rules_may_change_on_resume_and_every_parameter_keeps_its_state(name, before, after):
    module = Network()
    optimizer = built(module, name, groups=before)
    for _ in range(2):
        step(module, optimizer)
    state = {key: optimizer.state[parameter] for key, parameter in module.named_parameters()}
    again = built(module, name, groups=after)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    fresh = built(module, name, groups=after)
    apply_hyperparameters(again, OptimizerConfig(name, **{"lr": 0.05, "groups": after, **MORE.get(name, {})}))
    for key, parameter in module.named_parameters():
        assert state[key].keys() == again.state[parameter].keys()
        assert all(torch.equal(value, again.state[parameter][what]) for what, value in state[key].items())
    for mine, expected in zip(again.param_groups, fresh.param_groups, strict=True):
        assert names_of(again, module) == names_of(fresh, module)
        assert {key: mine[key] for key in expected if key != "params"} == {
            key: value for key, value in expected.items() if key != "params"
        }


def test_a_state_without_names_needs_the_same_groups():
    module = Network()
    optimizer = built(module, "adamw")
    step(module, optimizer)
    old = copy.deepcopy(optimizer.state_dict())
    for group in old["param_groups"]:  # as saved before groups had names
        for key in ("param_names", "rule", "width_scale"):
            del group[key]
    again = built(module, "adamw")
    again.load_state_dict(copy.deepcopy(old))
    apply_hyperparameters(again, OptimizerConfig(lr=0.05))
    step(module, again)
    with pytest.raises(ConfigError, match=r"other groups and no names: go on without optimizer\.groups"):
        built(module, "adamw", groups=[{"match": "norm"}]).load_state_dict(old)


@pytest.mark.parametrize(
    ("frozen_before", "frozen_after", "text"),
    [
        (["norm.weight", "norm.bias"], [], "has no state of norm.bias and 1 more"),
        ([], ["norm.bias"], "has state of norm.bias, which is not trained"),
    ],
)
def test_the_state_of_other_parameters_is_refused(frozen_before, frozen_after, text):
    def with_frozen(frozen):
        module = Network()
        for name in frozen:
            module.get_parameter(name).requires_grad_(False)
        return module

    state = built(with_frozen(frozen_before), "adamw").state_dict()
    with pytest.raises(ConfigError, match=text):
        built(with_frozen(frozen_after), "adamw").load_state_dict(state)


@pytest.mark.parametrize("name", ["sgd", "adafactor"])
def test_rates_of_mup_are_for_optimizers_like_adam(name):
    with pytest.raises(
        ConfigError, match=f"name is {name}, but the learning rates of backbone.init mup are those of Adam"
    ):
        build_optimizer(Network(), OptimizerConfig(name), lambda parameter: 0.5)


def test_plain_values_make_the_same_configuration():
    for name in NAMES:
        config = OptimizerConfig(name, groups=[ParameterRule("norm", 0.5)], **MORE.get(name, {}))
        plain = config.to_dict()
        assert OptimizerConfig(**plain) == config
        file = io.BytesIO()
        torch.save(plain, file)
        file.seek(0)
        assert torch.load(file, weights_only=True) == plain
