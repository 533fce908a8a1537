"""One parameter of a sweep: a value, several, a range, or arithmetic over others."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any

from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.sweeps.checks import choice, only, plain_value
from lightning_nlp.sweeps.expressions import Expression

DISTRIBUTIONS = {
    "constant": ("value",),
    "categorical": ("values",),
    "uniform": ("min", "max"),
    "int_uniform": ("min", "max"),
    "q_uniform": ("min", "max", "q"),
    "log_uniform_values": ("min", "max"),
    "q_log_uniform_values": ("min", "max", "q"),
}
"""Names as in W&B, and the keys each needs."""
KEYS = ("value", "values", "min", "max", "q", "distribution", "expr", "vars", "role")
MOST_VALUES = 10_000


@dataclass(frozen=True)
class Parameter:
    """``kind`` is ``value``, ``values``, ``range`` or ``expr``; ``role`` is ``search`` or ``replicate``."""

    key: str
    kind: str
    values: tuple[Any, ...] = ()
    distribution: str = "categorical"
    low: float = 0.0
    high: float = 0.0
    q: float | None = None
    expression: Expression | None = None
    variables: dict[str, str] = field(default_factory=dict)
    role: str = "search"

    @property
    def log(self) -> bool:
        return "log" in self.distribution

    def settle(self, raw: float) -> int | float:
        """A point of the range as the value that is set: whole, a multiple of ``q``, or of six digits."""
        if self.distribution == "int_uniform":
            return round(raw)
        if self.q is None:
            return min(max(float(f"{raw:.6g}"), self.low), self.high)
        steps = round(raw / self.q) * self.q
        low, high = math.ceil(self.low / self.q) * self.q, math.floor(self.high / self.q) * self.q
        value = min(max(steps, low), high)
        return int(value) if float(self.q).is_integer() else round(value, 12)

    def draw(self, source: random.Random) -> Any:
        """A value by chance."""
        if self.kind == "values":
            return source.choice(self.values)
        if self.distribution == "int_uniform":
            return source.randint(int(self.low), int(self.high))
        if self.log:
            raw = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
            return self.settle(raw)
        return self.settle(source.uniform(self.low, self.high))

    def probes(self) -> tuple[Any, ...]:
        """Values a parser has to accept: all of them, or the ends of the range."""
        return (self.settle(self.low), self.settle(self.high)) if self.kind == "range" else self.values


def parse_parameter(key: str, raw: Any, method: str) -> Parameter:
    """Check one entry of ``parameters``.

    Raises:
        ConfigError: names the parameter and what is wrong with it.
    """
    where = f"parameters.{key}"
    if not isinstance(raw, dict):
        shape = "values" if isinstance(raw, list) else "value"
        raise ConfigError(f"{where} must be a mapping: write {{{shape}: {plain(raw)}}}")
    if "parameters" in raw:
        raise ConfigError(f"{where}.parameters: no nesting: write the dotted key {key}.NAME")
    only(where, raw, KEYS)
    role = choice(f"{where}.role", raw.get("role", "search"), ("search", "replicate"))
    given = [name for name in ("value", "values", "expr") if name in raw] + ["min and max"] * (
        "min" in raw or "max" in raw
    )
    if len(given) != 1:
        what = " and ".join(given) if given else "none"
        raise ConfigError(f"{where} needs one of value, values, min and max, expr; got {what}")
    if role == "replicate" and given != ["values"]:
        raise ConfigError(f"{where}: a replicate needs 'values', e.g. [1, 2, 3]")
    if given == ["expr"]:
        return parse_expression(key, raw)
    if "vars" in raw:
        raise ConfigError(f"{where}.vars belongs to 'expr'")
    name = raw.get("distribution", default_distribution(raw))
    if name not in DISTRIBUTIONS:
        hint = "; did you mean 'log_uniform_values'?" if name == "log_uniform" else nearest(str(name), DISTRIBUTIONS)
        raise ConfigError(f"{where}.distribution: there is no '{name}'{hint} (known: {', '.join(DISTRIBUTIONS)})")
    wanted = DISTRIBUTIONS[name]
    for part in wanted:
        if part not in raw:
            raise ConfigError(f"{where}.{part} is required by distribution {name}")
    for part in ("value", "values", "min", "max", "q"):
        if part in raw and part not in wanted:
            raise ConfigError(f"{where}.{part} does not belong to distribution {name}")
    if name == "constant":
        return Parameter(key, "value", (plain_value(where, raw["value"]),), name)
    if name == "categorical":
        return parse_values(key, raw["values"], role)
    return parse_range(key, raw, name)


def default_distribution(raw: dict[str, Any]) -> str:
    if "value" in raw:
        return "constant"
    if "values" in raw:
        return "categorical"
    if "q" in raw:
        return "q_uniform"
    return "int_uniform" if type(raw.get("min")) is int and type(raw.get("max")) is int else "uniform"


def parse_values(key: str, values: Any, role: str) -> Parameter:
    where = f"parameters.{key}.values"
    if not isinstance(values, list) or not values:
        raise ConfigError(f"{where} must be a list of at least one value, got {plain(values)}")
    if len(values) > MOST_VALUES:
        raise ConfigError(f"{where} has {len(values)} entries, {MOST_VALUES} at most")
    seen: list[Any] = []
    for value in values:
        plain_value(where, value)
        if any(type(value) is type(other) and value == other for other in seen):
            raise ConfigError(f"{where}: {plain(value)} is given twice")
        seen.append(value)
    return Parameter(key, "values", tuple(values), role=role)


def parse_range(key: str, raw: dict[str, Any], name: str) -> Parameter:
    where = f"parameters.{key}"
    for part in ("min", "max", "q"):
        value = raw.get(part)
        if value is None and part == "q":
            continue
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
            raise ConfigError(f"{where}.{part} must be a number, got {plain(value)}")
        if name == "int_uniform" and type(value) is not int:
            raise ConfigError(f"{where}.{part} must be a whole number for int_uniform, got {plain(value)}")
    low, high, q = raw["min"], raw["max"], raw.get("q")
    if low >= high:
        raise ConfigError(f"{where}: min ({plain(low)}) must be less than max ({plain(high)})")
    if "log" in name and low <= 0:
        raise ConfigError(f"{where}.min must be more than 0 for {name}, got {plain(low)}")
    if q is not None and (q <= 0 or math.ceil(low / q) > math.floor(high / q)):
        raise ConfigError(f"{where}.q: there is no multiple of {plain(q)} between {plain(low)} and {plain(high)}")
    return Parameter(key, "range", distribution=name, low=low, high=high, q=q)


def parse_expression(key: str, raw: dict[str, Any]) -> Parameter:
    where = f"parameters.{key}"
    for part in ("distribution", "q"):
        if part in raw:
            raise ConfigError(f"{where}.{part} does not belong to 'expr'")
    variables = raw.get("vars", {})
    if not isinstance(variables, dict) or not all(isinstance(each, str) for each in (*variables, *variables.values())):
        raise ConfigError(f"{where}.vars must map names to parameters, e.g. {{d_model: model.backbone.d_model}}")
    try:
        expression = Expression(str(raw["expr"]), list(variables))
    except ConfigError as error:
        raise ConfigError(f"{where}.expr: {error}") from error
    return Parameter(key, "expr", distribution="expr", expression=expression, variables=dict(variables))


def plain(value: Any) -> str:
    """A value as one writes it in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list):
        return f"[{', '.join(map(plain, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
