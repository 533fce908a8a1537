"""Parameters as optuna's distributions, and its TPE as a function of seed, number and what is known."""

from __future__ import annotations

import hashlib
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial

from lightning_nlp.sweeps.grammar import Sweep
from lightning_nlp.sweeps.parameters import Parameter
from lightning_nlp.sweeps.space import Settings, canonical


class KeyedTPE(BaseSampler):
    """Tree-structured Parzen estimator (Bergstra et al. 2011) with a generator of its own for every trial.

    What a trial is given depends on the seed, its number and the results so far, and not on how often the sweep was
    stopped. Trials that run meanwhile count as bad (the constant liar), so that parallel ones do not crowd together.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def _of(self, trial: FrozenTrial) -> TPESampler:
        text = hashlib.sha256(f"{self._seed}:{trial.number}".encode()).digest()
        return TPESampler(seed=int.from_bytes(text[:4]), constant_liar=True)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        # One generator would give all parameters of a trial the same quantile of their ranges.
        text = hashlib.sha256(f"{self._seed}:{trial.number}:{param_name}".encode()).digest()
        sampler = TPESampler(seed=int.from_bytes(text[:4]), constant_liar=True)
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def encode(value: Any) -> Any:
    """A value as a category: lists become their text."""
    return value if value is None or isinstance(value, (bool, int, float, str)) else canonical(value)


def distribution(parameter: Parameter) -> BaseDistribution:
    """What optuna is to know of a parameter; multiples of ``q`` are rounded afterwards."""
    if parameter.kind == "values":
        return CategoricalDistribution([encode(value) for value in parameter.values])
    if parameter.distribution == "int_uniform":
        return IntDistribution(int(parameter.low), int(parameter.high))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def distributions(sweep: Sweep) -> dict[str, BaseDistribution]:
    """Of everything that varies, replicates aside."""
    if sweep.method == "list":
        keys = [key for key in sweep.trials[0] if all(key in trial for trial in sweep.trials)]
        values = {key: list(dict.fromkeys(encode(trial[key]) for trial in sweep.trials)) for key in keys}
        return {key: CategoricalDistribution(values[key]) for key in keys}
    return {each.key: distribution(each) for each in sweep.of_kind("values", "range")}


def suggest(trial: optuna.Trial, name: str, known: BaseDistribution) -> Any:
    """Ask a trial for a parameter."""
    if isinstance(known, CategoricalDistribution):
        return trial.suggest_categorical(name, known.choices)
    if isinstance(known, IntDistribution):
        return trial.suggest_int(name, known.low, known.high)
    assert isinstance(known, FloatDistribution)
    return trial.suggest_float(name, known.low, known.high, log=known.log)


def suggested(sweep: Sweep, trial: optuna.Trial) -> Settings:
    """What TPE chooses, as settings."""
    chosen: Settings = {}
    for parameter in sweep.of_kind("values", "range"):
        raw = suggest(trial, parameter.key, distribution(parameter))
        if parameter.kind == "values":
            chosen[parameter.key] = next(value for value in parameter.values if encode(value) == raw)
        else:
            chosen[parameter.key] = parameter.settle(raw)
    return chosen
