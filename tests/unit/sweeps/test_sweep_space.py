"""Configurations as functions of the file, arithmetic, intervals."""

from __future__ import annotations

import math
import statistics

import pytest

from lightning_nlp.errors import ConfigError
from lightning_nlp.sweeps import space
from lightning_nlp.sweeps.expressions import Expression
from lightning_nlp.sweeps.grammar import parse_sweep
from lightning_nlp.sweeps.metrics import Curve, Tail
from lightning_nlp.sweeps.statistics import half_width


def sweep(**content):
    return parse_sweep({"metric": {"name": "val/loss"}, "program": ["true"], **content}, "test")


def test_a_grid_is_a_product_whose_last_parameter_runs_fastest():
    parameters = {
        "a": {"values": [1, 2]},
        "b": {"value": "x"},
        "c": {"values": [True, None]},
        "seed": {"values": [7, 8], "role": "replicate"},
        "d": {"expr": "10 * a + 1", "vars": {"a": "a"}},
    }
    found = sweep(method="grid", parameters=parameters)
    assert space.plan(found) == [{"a": a, "b": "x", "c": c, "d": 10 * a + 1} for a in (1, 2) for c in (True, None)]
    assert space.replicates(found, {"a": 1}) == [{"a": 1, "seed": 7}, {"a": 1, "seed": 8}]
    assert space.varied(found) == ["a", "c", "d"]
    assert space.flags(space.plan(found)[0]) == ["--a=1", "--b=x", "--c=true", "--d=11"]
    assert len(space.plan(sweep(method="grid", parameters=parameters, run_cap=3))) == 3


def test_chance_is_a_function_of_seed_number_and_key():
    parameters = {"a": {"min": 0.0, "max": 1.0}, "b": {"values": list(range(100))}}
    first = space.plan(sweep(method="random", parameters=parameters, run_cap=8))
    assert space.plan(sweep(method="random", parameters=parameters, run_cap=5)) == first[:5]
    alone = space.plan(sweep(method="random", parameters={"a": parameters["a"]}, run_cap=8))
    assert [each["a"] for each in alone] == [each["a"] for each in first]  # one more parameter changes no other
    assert space.plan(sweep(method="random", parameters=parameters, run_cap=8, seed=2))[0] != first[0]


def test_chance_draws_nothing_twice_and_ends_when_all_is_drawn():
    parameters = {"a": {"values": [1, 2, 3]}, "b": {"min": 1, "max": 4}}
    found = space.plan(sweep(method="random", parameters=parameters, run_cap=100))
    assert sorted((each["a"], each["b"]) for each in found) == [(a, b) for a in (1, 2, 3) for b in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("parameter", "least", "most", "mean"),
    [
        ({"min": 2.0, "max": 4.0}, 2, 4, lambda x: (x, 3.0, 0.1)),
        ({"min": 1e-4, "max": 1e-2, "distribution": "log_uniform_values"}, 1e-4, 1e-2, lambda x: (math.log10(x), -3, 0.1)),
        ({"min": 1, "max": 6}, 1, 6, lambda x: (x, 3.5, 0.3)),
        ({"min": 16, "max": 256, "q": 16}, 16, 256, lambda x: (x, 136, 12)),
        ({"min": 10, "max": 1000, "q": 10, "distribution": "q_log_uniform_values"}, 10, 1000, lambda x: (math.log10(x), 2, 0.12)),
    ],
)  # fmt: skip
def test_distributions(parameter, least, most, mean):
    found = sweep(method="random", parameters={"a": parameter, "b": {"min": 0.0, "max": 1.0}}, run_cap=500)
    values = [each["a"] for each in space.plan(found)]
    assert min(values) >= least and max(values) <= most
    _, expected, tolerance = mean(values[0])
    assert statistics.fmean(mean(value)[0] for value in values) == pytest.approx(expected, abs=tolerance)
    if "q" in parameter:
        assert all(type(value) is int and value % parameter["q"] == 0 for value in values)


def test_names_of_trials_tell_settings_and_base_apart():
    assert space.digest({"a": 1, "b": 2}, "base") == space.digest({"b": 2, "a": 1}, "base")
    different = [({"a": 1}, "base"), ({"a": 1.0}, "base"), ({"a": "1"}, "base"), ({"a": True}, "base"), ({"a": 1}, "x")]
    assert len({space.digest(*each) for each in different}) == len(different)


@pytest.mark.parametrize(
    ("text", "value"),
    [("d // 64", 4), ("2 * (d + 1) - 1", 513), ("d / 512", 0.5), ("-d ** 2", -65536), ("max(d, 300) % 7", 6), ("round(sqrt(d))", 16), ("log2(d)", 8.0), ("1e-3 * 256 / d", 1e-3)],
)  # fmt: skip
def test_arithmetic(text, value):
    assert Expression(text, ["d"])({"d": 256}) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "text",
    ["d.__class__", "[d]", "d if d else 1", "lambda: d", "'a' * d", "d < 3", "f(d)", "min(d, key=d)", "(d := 3)", "d and 1", "True", "1j", "", "d d", "d" * 300, "print(d)"],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused_before_anything_is_computed(text):
    with pytest.raises(ConfigError):
        Expression(text, ["d"])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1 / (d - 256)", "division by zero"),
        ("d ** 999", "exponents go up to 64"),
        ("sqrt(-d)", "cannot be computed for d = 256"),
        ("(1e300 * d) ** 2", "cannot be computed"),
        ("1e300 * 1e300 * d", "gives inf, which is no finite number"),
        ("(d ** 60) ** 60", "a number of more than 300 digits"),
    ],
)
def test_what_cannot_be_computed_is_said(text, reason):
    with pytest.raises(ConfigError, match=reason.replace("(", r"\(")):
        Expression(text, ["d"])({"d": 256})


def test_a_whole_number_that_is_no_real_one_is_no_result():
    with pytest.raises(ConfigError, match=r"cannot be computed for d = 1000.*too large"):
        Expression("d", ["d"])({"d": 10**400})


@pytest.mark.parametrize(("cap", "line"), [(20_000, "20000 are asked for"), (None, "say how many to run")])
def test_a_plan_has_an_end(cap, line):
    parameters = {key: {"values": list(range(200))} for key in ("a", "b")}
    with pytest.raises(ConfigError) as caught:
        space.plan(sweep(method="grid", parameters=parameters, run_cap=cap))
    assert str(caught.value) == f"run_cap: a plan has at most 10000 configurations, here are more: {line}"


def test_intervals_are_those_of_student():
    assert half_width([1.0]) is None
    # Two-sided 95 % quantiles of Student's t, from tables: 4.303 with two, 2.262 with nine, 1.984 with 99 degrees.
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3), rel=1e-3)
    values = [float(number % 7) for number in range(10)]
    assert half_width(values) == pytest.approx(2.262 * statistics.stdev(values) / math.sqrt(10), rel=1e-3)
    values = [float(number % 7) for number in range(100)]
    assert half_width(values) == pytest.approx(1.984 * statistics.stdev(values) / 10, rel=1e-3)


def test_a_growing_file_is_read_by_whole_lines(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail, curve = Tail(path), Curve("val/loss")
    assert list(tail.lines()) == []
    path.write_text('{"step": 1, "val/loss": 3.0}\n{"step": 2, "val/l')
    assert [line["step"] for line in tail.lines()] == [1]
    with path.open("a") as stream:
        stream.write('oss": 2.0}\n{"step": 3, "tokens": 30, "val/loss": NaN}\nhalf a li{"step": 4}\n[]\n')
    for line in tail.lines():
        curve.add(line)
    assert list(curve.points) == [2, 3] and curve.tokens == 30 and curve.diverged_at == 3
    assert math.isnan(curve.value("best", True))


def test_the_value_of_a_curve_is_its_last_or_its_best():
    curve = Curve("val/loss", "tokens")
    for step, value in ((1, 3.0), (2, 1.0), (3, 2.0)):
        curve.add({"step": step, "tokens": 10 * step, "val/loss": value})
    assert curve.points == {10: 3.0, 20: 1.0, 30: 2.0} and curve.steps[20] == 2
    assert [curve.value("last", True), curve.value("best", True), curve.value("best", False)] == [2.0, 1.0, 3.0]
    assert Curve("val/loss").value("last", True) is None
