"""The YAML of a sweep, as typed objects. The keys are those of W&B sweeps and a few more; unknown ones are errors."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_nlp import yaml_file
from lightning_nlp.errors import ConfigError, nearest
from lightning_nlp.run.directory import NAME
from lightning_nlp.sweeps.checks import choice, mapping, needed, only, plain_value, seconds, text, texts, whole
from lightning_nlp.sweeps.parameters import Parameter, parse_parameter

METHODS = {
    "grid": "every combination of the given values",
    "list": "the configurations in `trials`, in their order",
    "random": "drawn by chance, a function of seed and number",
    "bayes": "tree-structured Parzen estimator: looks where good ones were (optuna)",
    "asha": "random, and the worse ones are stopped early (successive halving)",
}
STOPPING = {
    "asha": ("min_iter", "eta", "s"),
    "hyperband": ("min_iter", "max_iter", "eta"),
    "median": ("min_iter", "min_trials"),
}
"""Kinds of early termination and their keys."""
CAUSES = ("preempted", "killed", "host_oom", "stalled")
"""Ends of a process that say nothing about its configuration, so that it may be started again."""
KEYS = [
    "name",
    "description",
    "method",
    "metric",
    "run_cap",
    "seed",
    "base",
    "program",
    "parameters",
    "trials",
    "early_terminate",
    "retries",
    "launcher",
    "storage",
]
RESERVED = ("run", "name", "root", "overwrite", "config", "print_config", "help", "ckpt_path")


@dataclass(frozen=True)
class Metric:
    """What is compared: a key of ``metrics.jsonl``, its ``last`` value of a run or its ``best``."""

    name: str
    goal: str = "minimize"
    of: str = "last"

    @property
    def minimize(self) -> bool:
        return self.goal == "minimize"


@dataclass(frozen=True)
class EarlyTerminate:
    """When a configuration that does badly is stopped; ``resource`` is the unit of ``min_iter`` and ``max_iter``."""

    type: str
    resource: str = "step"
    min_iter: int = 1
    max_iter: int = 0
    eta: int = 3
    s: int = 0
    min_trials: int = 5


@dataclass(frozen=True)
class Retries:
    """How often a trial is started again, and after what."""

    max: int = 2
    on: tuple[str, ...] = ("preempted", "killed", "host_oom")


@dataclass(frozen=True)
class Launcher:
    """How trials are started on a machine.

    ``cores`` become OMP_NUM_THREADS of a trial (None: as it is), ``gpus_per_trial`` a CUDA_VISIBLE_DEVICES of its own
    (None: as it is, 0: none); ``timeout``, ``grace`` and ``heartbeat`` are seconds.
    """

    type: str = "local"
    parallel: int = 1
    cores: int | None = None
    gpus_per_trial: int | None = None
    timeout: float | None = None
    grace: float = 60.0
    heartbeat: float = 30.0


@dataclass(frozen=True)
class Sweep:
    """A whole sweep. ``base`` are paths as written; ``program`` replaces ``lightning-nlp fit``."""

    name: str
    method: str
    metric: Metric
    parameters: tuple[Parameter, ...]
    base: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    trials: tuple[dict[str, Any], ...] = ()
    run_cap: int | None = None
    seed: int = 1
    early_terminate: EarlyTerminate | None = None
    retries: Retries = field(default_factory=Retries)
    launcher: Launcher = field(default_factory=Launcher)
    storage: str | None = None
    description: str = ""

    @property
    def replicate(self) -> Parameter | None:
        """The parameter whose values are averaged over."""
        return next((parameter for parameter in self.parameters if parameter.role == "replicate"), None)

    def of_kind(self, *kinds: str) -> list[Parameter]:
        """Parameters of the search, of these kinds, in the order of the file."""
        return [each for each in self.parameters if each.kind in kinds and each.role == "search"]


def read_sweep(path: Path, name: str | None = None) -> Sweep:
    """Read and check a file.

    Args:
        path: of the YAML.
        name: where the file gives none (default: the file's stem).

    Raises:
        ConfigError: one line naming the key, with the nearest right one.
    """
    content = yaml_file.read(path, "sweep file")
    if not isinstance(content, dict):
        raise ConfigError(f"sweep file '{path}' must hold keys and values (method, metric, parameters ...)")
    return parse_sweep(content, name or path.stem)


def parse_sweep(raw: dict[str, Any], name: str) -> Sweep:
    """Check a mapping; ``name`` is used where it gives none.

    Raises:
        ConfigError: see :func:`read_sweep`.
    """
    only("", raw, KEYS)
    name = text("name", raw.get("name", name))
    if not NAME.fullmatch(name):
        raise ConfigError(f"name: '{name}' is not allowed: use up to 64 letters, digits, '.', '_' or '-'")
    method = choice("method", needed("", raw, "method"), METHODS)
    stopping = raw.get("early_terminate")
    if method == "asha":
        stopping = {"type": "asha", **mapping("early_terminate", stopping or {})}
        if stopping["type"] != "asha":
            raise ConfigError(f"early_terminate.type: method asha stops by asha, not by '{stopping['type']}'")
    sweep = Sweep(
        name=name,
        method=method,
        metric=parse_metric(needed("", raw, "metric")),
        parameters=parse_parameters(raw.get("parameters") or {}, method),
        base=texts("base", raw.get("base", [])),
        program=texts("program", raw.get("program", [])),
        trials=parse_trials(raw.get("trials"), method),
        run_cap=None if raw.get("run_cap") is None else whole("run_cap", raw["run_cap"], 1),
        seed=whole("seed", raw.get("seed", 1), 0),
        early_terminate=None if stopping is None else parse_stopping(stopping),
        retries=parse_retries(raw.get("retries", {})),
        launcher=parse_launcher(raw.get("launcher", {})),
        storage=None if raw.get("storage") is None else parse_storage(text("storage", raw["storage"])),
        description=text("description", raw.get("description", "")),
    )
    check_together(sweep)
    return sweep


def check_together(sweep: Sweep) -> None:
    """What is right alone and wrong together.

    Raises:
        ConfigError: names the keys.
    """
    if not sweep.base and not sweep.program:
        raise ConfigError("base: give the configuration every trial starts from, e.g. [configs/quickstart.yaml]")
    ranges = sweep.of_kind("range")
    if sweep.method in ("grid", "list") and ranges:
        raise ConfigError(f"parameters.{ranges[0].key}: method {sweep.method} needs 'values', not a range")
    searched = sweep.of_kind("values", "range")
    if sweep.method != "list" and not searched and sweep.replicate is None:
        raise ConfigError("parameters: nothing to search: none has 'values' or 'min' and 'max'")
    if sweep.method == "list" and searched:
        raise ConfigError(f"parameters.{searched[0].key}: method list takes what varies from 'trials'")
    if sweep.run_cap is None and (sweep.method == "bayes" or (ranges and sweep.method in ("random", "asha"))):
        raise ConfigError(f"run_cap: method {sweep.method} has no end by itself: give the number of configurations")
    keys = {parameter.key for parameter in sweep.parameters}
    for number, trial in enumerate(sweep.trials):
        both = next((key for key in trial if key in keys), None)
        if both is not None:
            raise ConfigError(f"trials[{number}].{both}: it is also in 'parameters': give it in one place")
    keys |= {key for trial in sweep.trials for key in trial}
    for parameter in sweep.parameters:
        for variable, key in parameter.variables.items():
            if key not in keys:
                raise ConfigError(
                    f"parameters.{parameter.key}.vars.{variable}: there is no parameter '{key}'{nearest(key, keys)}"
                )
            if next((each.kind for each in sweep.parameters if each.key == key), "") == "expr":
                raise ConfigError(f"parameters.{parameter.key}.vars.{variable}: '{key}' is itself computed")
    stopping = sweep.early_terminate
    if stopping is not None and stopping.type == "hyperband" and stopping.max_iter <= stopping.min_iter:
        raise ConfigError("early_terminate.max_iter must be more than min_iter: the length of a whole trial")


def parse_metric(raw: Any) -> Metric:
    raw = mapping("metric", raw)
    only("metric", raw, ("name", "goal", "of"))
    goal = choice("metric.goal", raw.get("goal", "minimize"), ("minimize", "maximize"))
    of = choice("metric.of", raw.get("of", "last"), ("last", "best"))
    return Metric(text("metric.name", needed("metric", raw, "name")), goal, of)


def parse_parameters(raw: Any, method: str) -> tuple[Parameter, ...]:
    parameters = []
    for key, value in mapping("parameters", raw).items():
        key = check_key("parameters", key)
        parameters.append(parse_parameter(key, value, method))
    replicates = [each.key for each in parameters if each.role == "replicate"]
    if len(replicates) > 1:
        raise ConfigError(f"parameters.{replicates[1]}.role: '{replicates[0]}' is the replicate already")
    return tuple(parameters)


def check_key(where: str, key: Any) -> str:
    key = text(where, key)
    if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", key):
        raise ConfigError(f"{where}: '{key}' is no dotted key such as model.optimizer.lr")
    if key in RESERVED:
        raise ConfigError(f"{where}.{key}: the sweep itself decides this")
    return key


def parse_trials(raw: Any, method: str) -> tuple[dict[str, Any], ...]:
    if method != "list":
        if raw is not None:
            raise ConfigError(f"trials: belongs to method list, not to {method}")
        return ()
    if not isinstance(raw, list) or not raw:
        raise ConfigError("trials: method list needs a list of configurations, each a mapping of keys to values")
    return tuple(
        {
            check_key(f"trials[{number}]", key): plain_value(f"trials[{number}].{key}", value)
            for key, value in mapping(f"trials[{number}]", each).items()
        }
        for number, each in enumerate(raw)
    )


def parse_stopping(raw: Any) -> EarlyTerminate:
    raw = mapping("early_terminate", raw)
    kind = choice("early_terminate.type", needed("early_terminate", raw, "type"), STOPPING)
    only("early_terminate", raw, ("type", "resource", *STOPPING[kind]))
    resource = choice("early_terminate.resource", raw.get("resource", "step"), ("step", "tokens", "global_step"))
    needed("early_terminate", raw, "min_iter")
    if kind == "hyperband":
        needed("early_terminate", raw, "max_iter")
    least = {"min_iter": 1, "max_iter": 1, "eta": 2, "s": 0, "min_trials": 1}
    numbers = {key: whole(f"early_terminate.{key}", raw[key], low) for key, low in least.items() if key in raw}
    return EarlyTerminate(kind, "tokens" if resource == "tokens" else "step", **numbers)


def parse_retries(raw: Any) -> Retries:
    raw = mapping("retries", raw)
    only("retries", raw, ("max", "on"))
    on = texts("retries.on", raw.get("on", list(Retries().on)))
    for cause in on:
        choice("retries.on", cause, CAUSES)
    return Retries(whole("retries.max", raw.get("max", 2), 0), on)


def parse_launcher(raw: Any) -> Launcher:
    raw = mapping("launcher", raw)
    only("launcher", raw, tuple(Launcher.__dataclass_fields__))
    if raw.get("type", "local") != "local":
        raise ConfigError(
            f"launcher.type must be local, got '{raw['type']}': other machines join with `lightning-nlp sweep worker`, "
            "and `lightning-nlp sweep slurm` prints an array of them"
        )
    least = {"parallel": 1, "cores": 1, "gpus_per_trial": 0}
    numbers = {key: whole(f"launcher.{key}", raw[key], low) for key, low in least.items() if raw.get(key) is not None}
    names = ("timeout", "grace", "heartbeat")
    times = {key: seconds(f"launcher.{key}", raw[key]) for key in names if raw.get(key) is not None}
    return Launcher(**numbers, **times)  # type: ignore[arg-type]


def parse_storage(url: str) -> str:
    from sqlalchemy import exc, make_url  # slow to load, and most sweeps name none

    if "://" not in url:
        return f"sqlite:///{url}"
    kind = url.partition("://")[0]
    if not url.startswith(("postgresql://", "sqlite:///")):
        raise ConfigError(f"storage: '{kind}' is not supported: use postgresql:// or a file (SQLite)")
    try:
        make_url(url)
    except (exc.ArgumentError, ValueError) as error:  # not shown: it may hold a password
        raise ConfigError(f"storage: this {kind} URL cannot be read: write {kind}://user@host:5432/name") from error
    return url
