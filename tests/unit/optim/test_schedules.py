"""Learning-rate schedules against their closed forms."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from lightning_nlp import registry
from lightning_nlp.errors import ConfigError
from lightning_nlp.optim.schedules import ScheduleConfig, factor, progress, warm_up

TOTAL, WARMUP, FINAL = 110, 10, 0.2


@pytest.mark.parametrize(
    ("step", "constant", "linear", "cosine"),
    [
        (0, 0.1, 0.1, 0.1),
        (4, 0.5, 0.5, 0.5),
        (9, 1.0, 1.0, 1.0),  # last step of warm-up
        (10, 1.0, 1.0, 1.0),  # first step of the decay
        (35, 1.0, 0.8, 0.2 + 0.8 * (0.5 + math.sqrt(0.125))),
        (60, 1.0, 0.6, 0.6),
        (85, 1.0, 0.4, 0.2 + 0.8 * (0.5 - math.sqrt(0.125))),
        (110, 1.0, 0.2, 0.2),
        (1000, 1.0, 0.2, 0.2),
    ],
)
def test_factor_has_its_closed_form(step, constant, linear, cosine):
    for name, expected in (("constant", constant), ("linear", linear), ("cosine", cosine)):
        config = ScheduleConfig(name=name, warmup=WARMUP, final=FINAL)
        assert factor(config, step, TOTAL) == pytest.approx(expected, abs=1e-12), name


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "inverse_sqrt", "polynomial", "wsd"])
@pytest.mark.parametrize(("warmup", "total"), [(0, 1), (0, 50), (1, 50), (7, 50), (50, 50), (80, 50)])
def test_factor_rises_to_one_then_never_rises_again(name, warmup, total):
    config = ScheduleConfig(name=name, warmup=warmup, final=0.1)
    values = [factor(config, step, total) for step in range(max(warmup, total) + 5)]
    assert all(0 < value <= 1 for value in values)
    if warmup <= total:
        assert values[max(warmup - 1, 0)] == 1.0
        assert all(after >= before for before, after in itertools.pairwise(values[:warmup]))
        decay = values[warmup:]
        assert all(after <= before for before, after in itertools.pairwise(decay))


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.25), (3, 1.0), (4, 0.8**0.5), (15, 0.5), (399, 0.1), (9999, 0.05)]
)
def test_inverse_square_root_has_its_closed_form_and_a_floor(step, expected):
    """Vaswani et al. 2017: lr = peak * min((s + 1) / w, sqrt(w / (s + 1))), here with w = 4 and a floor of 0.05."""
    assert factor(ScheduleConfig(name="inverse_sqrt", warmup=4, final=0.05), step, 100) == pytest.approx(expected)
    assert factor(ScheduleConfig(name="inverse_sqrt", warmup=0, final=0.0), 8, 100) == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["linear", "cosine", "polynomial", "wsd"])
@pytest.mark.parametrize("final", [0.0, 0.5, 1.0])
def test_end_is_final(name, final):
    assert factor(ScheduleConfig(name=name, final=final), 20, 20) == pytest.approx(final, abs=1e-12)


@pytest.mark.parametrize(("step", "warmup", "expected"), [(0, 0, 1.0), (0, 1, 1.0), (0, 4, 0.25), (3, 4, 1), (9, 4, 1)])
def test_warm_up(step, warmup, expected):
    assert warm_up(step, warmup) == expected


@pytest.mark.parametrize(
    ("step", "total", "warmup", "expected"),
    [(0, 10, 5, 0.0), (5, 10, 5, 0.0), (6, 10, 5, 0.2), (10, 10, 5, 1.0), (11, 10, 5, 1.0), (3, 3, 3, 0.0)],
)
def test_progress(step, total, warmup, expected):
    assert progress(step, total, warmup) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "step", "expected"),
    [
        # warm-up 10, the last 20 of 110 steps: stable until 90, then x = (step - 90) / 20
        ({"decay": 20, "form": "linear"}, 4, 0.5),
        ({"decay": 20, "form": "linear"}, 10, 1.0),
        ({"decay": 20, "form": "linear"}, 90, 1.0),
        ({"decay": 20, "form": "linear"}, 95, 0.2 + 0.8 * 0.75),
        ({"decay": 20, "form": "cosine"}, 95, 0.2 + 0.8 * (0.5 + math.sqrt(0.125))),
        ({"decay": 20, "form": "sqrt"}, 95, 0.2 + 0.8 * 0.5),
        ({"decay": 20}, 95, 0.2 + 0.8 * 0.5),
        ({"decay": 0.5, "form": "linear"}, 55, 1.0),  # 55 steps of 110
        ({"decay": 0.5, "form": "linear"}, 66, 0.2 + 0.8 * 0.8),
        ({"decay": 500, "form": "linear"}, 60, 0.2 + 0.8 * 0.5),  # longer than the run: right after warm-up
        ({"form": "linear"}, 99, 0.2 + 0.8 * 0.5),  # a fifth, 22 steps from 88 on
        ({"decay": 20}, 110, 0.2),
        ({"decay": 20}, 5000, 0.2),
    ],
)
def test_warm_up_stable_decay_has_its_closed_form(settings, step, expected):
    config = ScheduleConfig("wsd", warmup=WARMUP, final=FINAL, **settings)
    assert factor(config, step, TOTAL) == pytest.approx(expected, abs=1e-12)


def test_a_nearer_end_decays_from_the_step_it_is_asked_at():
    """What a branch from a checkpoint of the stable part does: the same steps before, the decay right behind."""
    long, short = ScheduleConfig("wsd", warmup=10, decay=0.2), ScheduleConfig("wsd", warmup=10, decay=100)
    assert [factor(long, step, 5000) for step in range(400)] == [factor(short, step, 500) for step in range(400)]
    assert factor(short, 400, 500) == 1.0 > factor(short, 401, 500)


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_polynomial_has_its_closed_form(power):
    config = ScheduleConfig("polynomial", warmup=WARMUP, final=FINAL, power=power)
    for step, share in ((4, None), (10, 0.0), (35, 0.25), (85, 0.75), (110, 1.0)):
        expected = 0.5 if share is None else FINAL + (1 - FINAL) * (1 - share) ** power
        assert factor(config, step, TOTAL) == pytest.approx(expected, abs=1e-12)
    default = ScheduleConfig("polynomial", final=0.0)
    assert factor(default, 50, 100) == 0.25


@pytest.mark.parametrize(("cycle", "growth"), [(8, 1), (5, 2), (1, 3)])
def test_restarts_are_pytorchs(cycle, growth):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    peer = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, cycle, growth, eta_min=0.1)
    config = ScheduleConfig("restarts", cycle=cycle, cycle_growth=float(growth), final=0.1)
    for step in range(60):
        assert factor(config, step, 60) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12), step
        optimizer.step()
        peer.step()


@pytest.mark.parametrize(
    ("settings", "step", "expected"),
    [
        # warm-up 10, then four cycles of 25 steps
        ({}, 4, 0.5),
        ({}, 10, 1.0),
        ({"form": "linear"}, 20, 0.2 + 0.8 * 0.6),
        ({}, 34, 0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 0.96))),
        ({}, 35, 1.0),
        ({}, 85, 1.0),
        ({"cycle": 40, "form": "sqrt"}, 60, 0.2 + 0.8 * 0.5),
        ({"cycle": 40, "form": "linear", "cycle_growth": 1.5}, 80, 0.2 + 0.8 * 0.5),  # 10-50, 50-110
        ({"cycle": 0.001}, 77, 1.0),  # at least a step
    ],
)
def test_restarts_come_after_warm_up(settings, step, expected):
    config = ScheduleConfig("restarts", warmup=WARMUP, final=FINAL, **settings)
    assert factor(config, step, TOTAL) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", registry.SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 3, 0.1, 0.5])
def test_the_first_step_learns_also_in_a_run_of_one(name, warmup):
    for total in (1, 2, 1000):
        config = ScheduleConfig(name, warmup=warmup, final=0.0)
        assert 0 < factor(config, 0, total) <= 1
        assert all(0 <= factor(config, step, total) <= 1 for step in (total - 1, total, 3 * total))


@pytest.mark.parametrize(("ramp", "expected"), [("none", 1.0), ("sqrt", 0.5), ("linear", 0.25)])
def test_a_small_batch_learns_more_slowly(ramp, expected):
    config = ScheduleConfig("linear", final=0.0, ramp=ramp)
    assert factor(config, 50, 100, 0.25) == pytest.approx(0.5 * expected)
    assert factor(config, 50, 100) == pytest.approx(0.5)


def test_plain_values_make_the_same_schedule():
    config = ScheduleConfig("wsd", warmup=0.1, decay=7, form="linear", ramp="sqrt")
    assert ScheduleConfig(**config.to_dict()) == config
    assert config.settings == {"decay": 7, "form": "linear"} and ScheduleConfig("cosine").settings == {}


@pytest.mark.parametrize(
    ("warmup", "total", "steps"),
    [(0, 100, 0), (7, 100, 7), (0.1, 100, 10), (0.015, 1000, 15), (5.0, 100, 5), (1, 100, 1), (0.99, 100, 99)],
)
def test_warmup_is_steps_or_a_share(warmup, total, steps):
    found = ScheduleConfig(warmup=warmup).warmup_steps(total)
    assert found == steps
    assert isinstance(found, int)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"name": "cosin"},
            r"unknown schedule\.name 'cosin'; did you mean 'cosine'\? \(known: constant, linear, cosine, inverse_sqrt, polynomial, wsd, restarts\)",
        ),
        ({"name": "zzz"}, r"unknown schedule\.name 'zzz' \(known: "),
        ({"warmup": -1}, r"schedule\.warmup must be a number of steps or a share below 1, not -1"),
        ({"warmup": 1.5}, r"schedule\.warmup must be .* not 1\.5"),
        ({"final": -0.1}, r"schedule\.final must be between 0 and 1, not -0\.1"),
        ({"final": 1.1}, r"schedule\.final must be between 0 and 1, not 1\.1"),
        ({"final": math.nan}, r"schedule\.final must be between 0 and 1"),
        ({"name": "noam"}, r"unknown schedule\.name 'noam'; did you mean 'inverse_sqrt'\?"),
        ({"name": "SGDR"}, r"unknown schedule\.name 'SGDR'; did you mean 'restarts'\?"),
        ({"power": 2.0}, r"schedule\.power belongs to polynomial, schedule\.name is cosine \(null takes it back\)"),
        ({"form": "linear"}, r"schedule\.form belongs to wsd and restarts, schedule\.name is cosine"),
        ({"name": "wsd", "cycle": 5}, r"schedule\.cycle belongs to restarts, schedule\.name is wsd"),
        ({"name": "wsd", "decay": 0}, r"schedule\.decay must be a number of steps or a share below 1, not 0"),
        ({"name": "wsd", "decay": 2.5}, r"schedule\.decay must be .* not 2\.5"),
        (
            {"name": "wsd", "form": "sqr"},
            r"schedule\.form must be one of linear, sqrt, cosine, not 'sqr'; did you mean",
        ),
        ({"name": "restarts", "cycle": -1}, r"schedule\.cycle must be .* not -1"),
        ({"name": "restarts", "cycle_growth": 0.5}, r"schedule\.cycle_growth must be at least 1, not 0\.5"),
        ({"name": "polynomial", "power": 0.0}, r"schedule\.power must be positive, not 0"),
        ({"ramp": "root"}, r"schedule\.ramp must be one of none, sqrt, linear, not 'root'"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        ScheduleConfig(**settings)
