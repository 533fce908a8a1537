"""Early stopping by optuna's pruners, decided once for every step: a kill in between changes no decision."""

from __future__ import annotations

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState

from lightning_nlp.sweeps.grammar import EarlyTerminate

JUDGED = "judged"
"""Attribute of a trial: ``{"step", "before"}`` while a decision is being made, ``{"step", "prune"}`` afterwards."""


def pruner(stopping: EarlyTerminate | None) -> BasePruner:
    """Asynchronous successive halving (Li et al. 2020), Hyperband (Li et al. 2018), the median rule (Golovin 2017)."""
    if stopping is None:
        return NopPruner()
    if stopping.type == "asha":
        return SuccessiveHalvingPruner(stopping.min_iter, stopping.eta, stopping.s)
    if stopping.type == "hyperband":
        return HyperbandPruner(stopping.min_iter, stopping.max_iter, stopping.eta)
    return MedianPruner(stopping.min_trials, stopping.min_iter)


def judge(study: optuna.Study, trial: optuna.Trial, step: int) -> bool:
    """Whether to stop after ``step``, the last one reported."""
    frozen = study._storage.get_trial(trial._trial_id)
    before = frozen.user_attrs.get(JUDGED, {})
    if before.get("step") == step and "prune" in before:
        return bool(before["prune"])
    if before.get("step") == step:  # killed while it was being decided: successive halving has counted it already
        decision = judge_again(study, frozen, before["before"])
    else:
        trial.set_user_attr(JUDGED, {"step": step, "before": frozen.system_attrs})
        decision = bool(trial.should_prune())  # numpy's, of some pruners
    trial.set_user_attr(JUDGED, {"step": step, "prune": decision})
    return decision


def judge_again(study: optuna.Study, trial: FrozenTrial, before: dict[str, object]) -> bool:
    """The decision as it would have been, made in memory with the attributes the trial had before.

    What optuna wrote of the rungs that it passed is kept in the study: it is the same either way.
    """
    memory = optuna.create_study(study_name=study.study_name, direction=study.direction, pruner=study.pruner)
    for other in study.get_trials(deepcopy=False):
        mine = other.number == trial.number
        memory.add_trial(as_it_was(trial, before) if mine else other)
    return optuna.Trial(memory, memory.trials[trial.number]._trial_id).should_prune()


def as_it_was(trial: FrozenTrial, attributes: dict[str, object]) -> FrozenTrial:
    """A running trial with other system attributes."""
    return optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values=trial.intermediate_values,
        system_attrs=attributes,
    )
