"""Learning-rate schedules against their closed forms."""

from __future__ import annotations

import itertools
import math

import pytest

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


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "inverse_sqrt"])
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


@pytest.mark.parametrize("name", ["linear", "cosine"])
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
            r"unknown schedule\.name 'cosin'; did you mean 'cosine'\? \(known: constant, linear, cosine, inverse_sqrt\)",
        ),
        ({"name": "zzz"}, r"unknown schedule\.name 'zzz' \(known: "),
        ({"warmup": -1}, r"schedule\.warmup must be a number of steps or a share below 1, not -1"),
        ({"warmup": 1.5}, r"schedule\.warmup must be .* not 1\.5"),
        ({"final": -0.1}, r"schedule\.final must be between 0 and 1, not -0\.1"),
        ({"final": 1.1}, r"schedule\.final must be between 0 and 1, not 1\.1"),
        ({"final": math.nan}, r"schedule\.final must be between 0 and 1"),
    ],
)
def test_wrong_settings_are_refused(settings, text):
    with pytest.raises(ConfigError, match=text):
        ScheduleConfig(**settings)
