"""The configurations of a sweep, as pure functions of its file: the same ones, in the same order, every time."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator
from typing import Any

from lightning_nlp.errors import ConfigError
from lightning_nlp.sweeps.grammar import Sweep

Settings = dict[str, Any]
"""Dotted keys of the command line and their values."""
LARGEST_PLAN = 10_000
DRAWS_FOR_ONE = 100
"""How often chance is asked for a configuration that was not drawn before."""


def plan(sweep: Sweep) -> list[Settings]:
    """What a grid, a list or chance will try, replicates aside; each configuration once, at most ``run_cap``.

    Raises:
        ConfigError: the method has no plan (bayes), there are too many, or an expression cannot be computed.
    """
    found: dict[str, Settings] = {}
    for settings in itertools.islice(candidates(sweep), DRAWS_FOR_ONE * LARGEST_PLAN):
        found.setdefault(canonical(settings), settings)
        if sweep.run_cap is not None and len(found) >= sweep.run_cap:
            break
        if len(found) > LARGEST_PLAN:
            asked = "say how many to run" if sweep.run_cap is None else f"{sweep.run_cap} are asked for"
            raise ConfigError(f"run_cap: a plan has at most {LARGEST_PLAN} configurations, here are more: {asked}")
    return list(found.values())


def candidates(sweep: Sweep) -> Iterator[Settings]:
    """Configurations in their order; those of chance may repeat, and end when nothing new comes for long."""
    searched = sweep.of_kind("values", "range")
    if sweep.method == "list":
        yield from (complete(sweep, trial) for trial in sweep.trials)
    elif sweep.method == "grid":
        for combination in itertools.product(*(parameter.values for parameter in searched)):
            yield complete(sweep, dict(zip([each.key for each in searched], combination, strict=True)))
    elif sweep.method in ("random", "asha"):
        seen: set[str] = set()
        number, fruitless = 0, 0
        while fruitless < DRAWS_FOR_ONE * max(len(seen), 1) and len(seen) < size(sweep):
            # A generator for every parameter: one more of them changes nothing about the others.
            drawn = {each.key: each.draw(random.Random(f"{sweep.seed}:{number}:{each.key}")) for each in searched}
            settings = complete(sweep, drawn)
            new = canonical(settings) not in seen
            fruitless = 0 if new else fruitless + 1
            seen.add(canonical(settings))
            number += 1
            yield settings
    else:
        raise ConfigError(f"method {sweep.method} decides as it goes")


def size(sweep: Sweep) -> float:
    """Number of different configurations, infinity where a range is continuous."""
    total = 1.0
    for parameter in sweep.of_kind("values", "range"):
        if parameter.kind == "values":
            total *= len(parameter.values)
        elif parameter.distribution == "int_uniform":
            total *= parameter.high - parameter.low + 1
        elif parameter.q is not None:
            total *= math.floor(parameter.high / parameter.q) - math.ceil(parameter.low / parameter.q) + 1
        else:
            return math.inf
    return total


def complete(sweep: Sweep, chosen: Settings) -> Settings:
    """Add constants and what is computed, in the order of the file.

    Raises:
        ConfigError: an expression cannot be computed for these values.
    """
    settings = {**{each.key: each.values[0] for each in sweep.of_kind("value")}, **chosen}
    for parameter in sweep.of_kind("expr"):
        assert parameter.expression is not None
        absent = [key for key in parameter.variables.values() if key not in settings]
        if absent:
            raise ConfigError(f"parameters.{parameter.key}.expr: '{absent[0]}' has no value in this configuration")
        try:
            values = {name: settings[key] for name, key in parameter.variables.items()}
            settings[parameter.key] = parameter.expression(values)
        except ConfigError as error:
            raise ConfigError(f"parameters.{parameter.key}.expr: {error}") from error
    order = [each.key for each in sweep.parameters]
    return dict(sorted(settings.items(), key=lambda item: order.index(item[0]) if item[0] in order else -1))


def replicates(sweep: Sweep, settings: Settings) -> list[Settings]:
    """The trials of one configuration: one for every value of the replicate, or just itself."""
    if sweep.replicate is None:
        return [settings]
    return [{**settings, sweep.replicate.key: value} for value in sweep.replicate.values]


def varied(sweep: Sweep) -> list[str]:
    """Keys by which configurations differ: what a table shows."""
    constant = {each.key for each in sweep.of_kind("value")}
    constant |= {each.key for each in sweep.of_kind("expr") if constant.issuperset(each.variables.values())}
    keys = [each.key for each in sweep.parameters if each.key not in constant and each.role == "search"]
    in_trials = dict.fromkeys(key for trial in sweep.trials for key in trial)
    return [*in_trials, *keys]


def canonical(value: Any) -> str:
    """One text for equal values; 1 and 1.0 are different, as they are on a command line."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(settings: Settings, base: str) -> str:
    """Twelve characters that name a configuration and the files it starts from."""
    return hashlib.sha256(f"{base}\n{canonical(settings)}".encode()).hexdigest()[:12]


def flags(settings: Settings) -> list[str]:
    """Settings as options of a command line."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
