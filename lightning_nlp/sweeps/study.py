"""What all workers of a sweep share: optuna's study, in SQLite or PostgreSQL, and who has claimed what."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from lightning_nlp.errors import ConfigError
from lightning_nlp.sweeps import sampling, space
from lightning_nlp.sweeps.claims import Claims, Owner
from lightning_nlp.sweeps.grammar import Sweep
from lightning_nlp.sweeps.ledger import VERSION
from lightning_nlp.sweeps.space import Settings
from lightning_nlp.sweeps.stopping import judge, pruner
from lightning_nlp.sweeps.storage import open_storage, patient, reachable, together

RECORD = "trial:"
"""Attributes of a configuration that begin so are records of its trials."""
SAME_AGAIN = 50
"""After so many configurations in a row that were known already, a search is over."""
STATES = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


@dataclass
class Claim:
    """A configuration that this worker runs: all its replicates. ``key`` is what was claimed, ``number`` its place,
    ``trials`` are records as in :mod:`~lightning_nlp.sweeps.ledger`."""

    trial: optuna.Trial
    key: int
    number: int
    cell: str
    settings: Settings
    trials: dict[str, dict[str, Any]]
    reported: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Cell:
    """What the study knows of one configuration; ``trials`` are records as in :mod:`~lightning_nlp.sweeps.ledger`."""

    number: int
    cell: str
    settings: Settings
    state: str
    value: float | None
    curve: dict[int, float]
    trials: dict[str, dict[str, Any]]


class Study:
    """The study of one sweep.

    Args:
        sweep: names the study.
        url: of the database; a SQLite file is made.
        identity: what must be the same for everybody: digest by part of the file, see :mod:`identity`.
        base: digest of the base files, part of every trial's name.
        is_dead: True, False or None (unknown) for the name of a worker.

    Raises:
        ConfigError: the study in the database is of another sweep, or of another version of the ledger.
        DataError: the database cannot be reached or is locked.
    """

    def __init__(
        self,
        sweep: Sweep,
        url: str,
        identity: dict[str, Any],
        base: str,
        is_dead: Callable[[str], bool | None] = lambda name: None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep, self._base, self.url = sweep, base, url
        with self.reachable():
            storage = together(lambda: open_storage(url))
            self._study = together(lambda: open_study(sweep, storage))
            self.claims = Claims(storage.engine, sweep.name, is_dead)
            self._check(identity)

    def _check(self, identity: dict[str, Any]) -> None:
        mine = {"version": VERSION, **identity}
        theirs = self._study.user_attrs.get("identity")
        if theirs is None:
            self._study.set_user_attr("identity", mine)
        elif theirs.get("version") != VERSION:
            raise ConfigError(
                f"the study '{self.sweep.name}' is a ledger of version {theirs.get('version')}, this is lightning-nlp "
                f"with version {VERSION}"
            )
        elif theirs != mine:
            parts = [part for part in mine if theirs.get(part) != mine[part]]
            raise ConfigError(
                f"the study '{self.sweep.name}' in the storage is of another sweep: {', '.join(parts)} differ; "
                "choose another name"
            )

    def reachable(self) -> contextlib.AbstractContextManager[None]:
        """Turn what the database says into one line; see :func:`~lightning_nlp.sweeps.storage.reachable`."""
        return reachable(self.url)

    # Planning ---------------------------------------------------------------------------------------------------

    def planned(self) -> int:
        """How many configurations a planner has added so far, once it was through."""
        return int(self._study.user_attrs.get("planned", 0))

    def plan(self, settings: list[Settings]) -> None:
        """Add what is not there yet, in order; a planner that was killed goes on where it stopped."""
        known = {trial.user_attrs.get("cell") for trial in self._trials()}
        searched = sampling.distributions(self.sweep)
        for each in settings:
            cell = space.digest(each, self._base)
            if cell not in known:
                params = {key: sampling.encode(each[key]) for key in searched}
                self._study.enqueue_trial(params, {"settings": each, "cell": cell})
        self._study.set_user_attr("planned", len(settings))

    def put_back(self, cell: Cell, trials: dict[str, dict[str, Any]]) -> None:
        """Put a configuration that failed back into the queue, with these records of its trials."""
        failed = next(trial for trial in self._counted() if trial.user_attrs.get("cell") == cell.cell)
        kept = {"settings": cell.settings, "cell": cell.cell, "number": cell.number}
        self._study.enqueue_trial(failed.params, kept | {f"{RECORD}{name}": each for name, each in trials.items()})

    # Work -------------------------------------------------------------------------------------------------------

    def next(self, worker: str, held: set[int], patience: float) -> Claim | None:
        """A configuration for ``worker``: one whose worker died, else one that waits, else a new one.

        Args:
            worker: who asks.
            held: keys of the claims it works on.
            patience: seconds of silence after which a worker nobody knows anything of counts as dead.
        """
        owners = self.claims.owners()
        trials = self._trials()
        for trial in trials:
            if trial.state == TrialState.RUNNING and self._abandoned(trial, owners, worker, held, patience):
                return self._continued(trial)
        if any(trial.state == TrialState.WAITING for trial in trials):
            return self._started(self._study.ask(), worker)
        if self.sweep.method == "bayes":
            return self._searched(worker)
        return None

    def _abandoned(
        self, trial: FrozenTrial, owners: dict[int, Owner], worker: str, held: set[int], patience: float
    ) -> bool:
        owner = owners.get(trial.number)
        if owner is None:  # its worker died, or is about to write its name
            silent = self.claims.silent_for(trial.number, Owner("?", 0))
            return silent > min(patience, 5.0) and self.claims.take(trial.number, worker)
        if owner.worker == worker:  # not held: the database was lost in the moment in which it was claimed
            return trial.number not in held
        return self.claims.inherit(trial.number, owner, worker, patience)

    def _continued(self, frozen: FrozenTrial) -> Claim | None:
        trial = optuna.Trial(self._study, frozen._trial_id)
        if "settings" not in frozen.user_attrs:
            if self.sweep.method != "bayes":
                self._drop(trial)
                return None
            self._choose(trial)
        return self._claim(trial)

    def _started(self, trial: optuna.Trial, worker: str) -> Claim | None:
        """What was popped from the queue; empty-handed where another worker was faster."""
        if not self.claims.take(trial.number, worker):
            return None
        if "settings" not in trial.user_attrs:
            self._drop(trial)
            return None
        for name, known in sampling.distributions(self.sweep).items():
            if name in trial.user_attrs["settings"]:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of values a distribution would not have drawn
                    sampling.suggest(trial, name, known)
        return self._claim(trial)

    def _searched(self, worker: str) -> Claim | None:
        cap = min(self.sweep.run_cap or 1, space.size(self.sweep))
        for _ in range(SAME_AGAIN):
            if len(self._counted()) >= cap:
                return None
            trial = self._study.ask()
            if not self.claims.take(trial.number, worker):
                return None
            earlier = [each for each in self._counted() if each.number < trial.number]
            if len(earlier) >= cap:  # another worker asked at the same moment
                self._drop(trial)
                return None
            self._choose(trial)
            same = next((each for each in earlier if each.user_attrs.get("cell") == trial.user_attrs["cell"]), None)
            if same is None:
                return self._claim(trial)
            trial.set_user_attr("same_as", same.number)
            if same.state == TrialState.COMPLETE:
                self._study.tell(trial, same.value)
            else:
                self._study.tell(trial, state=TrialState.FAIL)
        return None

    def _choose(self, trial: optuna.Trial) -> None:
        settings = space.complete(self.sweep, sampling.suggested(self.sweep, trial))
        trial.set_user_attr("cell", space.digest(settings, self._base))
        trial.set_user_attr("settings", settings)

    def _claim(self, trial: optuna.Trial) -> Claim:
        frozen = self._storage.get_trial(trial._trial_id)
        attributes = frozen.user_attrs
        return Claim(
            trial,
            trial.number,
            number_of(frozen),
            attributes["cell"],
            attributes["settings"],
            records_of(frozen),
            set(frozen.intermediate_values),
        )

    def _drop(self, trial: optuna.Trial) -> None:
        trial.set_user_attr("dropped", True)
        self._study.tell(trial, state=TrialState.FAIL)

    @patient
    def report(self, claim: Claim, step: int, value: float) -> bool:
        """Tell a point of the curve (mean over replicates); True when the configuration is to be stopped."""
        if step not in claim.reported:
            claim.trial.report(value, step)
            claim.reported.add(step)
        elif step != max(claim.reported):
            return False  # it was decided on, before this worker took over
        return self.sweep.early_terminate is not None and judge(self._study, claim.trial, step)

    @patient
    def record(self, claim: Claim, trial: str, value: dict[str, Any]) -> None:
        """Keep the record of a trial in the study, for those who do not see its directory."""
        claim.trial.set_user_attr(f"{RECORD}{trial}", value)

    @patient
    def finish(self, claim: Claim, state: str, value: float | None, worker: str) -> None:
        """End a configuration: ``done`` with its value, ``pruned`` or ``failed``."""
        told = {"done": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[state]
        with contextlib.suppress(UpdateFinishedTrialError):
            self._study.tell(claim.trial, value if state == "done" else None, told, skip_if_finished=True)
        self.claims.release(claim.key, worker)

    # What there is ----------------------------------------------------------------------------------------------

    @patient
    def cells(self) -> list[Cell]:
        """All configurations that were chosen, in their order; each once."""
        found, owners = [], self.claims.owners()
        for trial in self._counted():
            if "settings" not in trial.user_attrs:
                continue
            state = STATES[trial.state]
            if state == "running" and self.claims.is_free(owners.get(trial.number)):
                state = "waiting"  # to be gone on with: whoever ran it has stopped, or died
            value = trial.value if trial.state == TrialState.COMPLETE else None
            if trial.state == TrialState.PRUNED and trial.last_step is not None:
                value = trial.intermediate_values[trial.last_step]
            attributes = trial.user_attrs
            found.append(
                Cell(
                    number_of(trial),
                    attributes["cell"],
                    attributes["settings"],
                    state,
                    value,
                    dict(sorted(trial.intermediate_values.items())),
                    records_of(trial),
                )
            )
        return found

    @patient
    def open_ends(self) -> bool:
        """Whether anything waits or runs, with any worker."""
        return any(not trial.state.is_finished() for trial in self._trials())

    def importances(self) -> dict[str, float]:
        """Share of each parameter in what separates the better half of the configurations (PED-ANOVA, Watanabe 2023).

        Empty where fewer than four configurations are done, or nothing varies.
        """
        done = [trial for trial in self._counted() if trial.state == TrialState.COMPLETE]
        names = [name for name, known in sampling.distributions(self.sweep).items() if not known.single()]
        if len(done) < 4 or not names:
            return {}
        memory = optuna.create_study(direction=self._study.direction)
        memory.add_trials(done)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=0.5)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(memory, evaluator=evaluator, params=names)

    @property
    def _storage(self) -> optuna.storages.BaseStorage:
        return self._study._storage

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _counted(self) -> list[FrozenTrial]:
        """One entry for each configuration: the latest, where one that failed was put back into the queue."""
        found: dict[Any, FrozenTrial] = {}
        for trial in self._trials():
            if "dropped" not in trial.user_attrs and "same_as" not in trial.user_attrs:
                found[trial.user_attrs.get("cell", trial.number)] = trial
        return sorted(found.values(), key=number_of)


def number_of(trial: FrozenTrial) -> int:
    """Its place in the order in which configurations were chosen."""
    return int(trial.user_attrs.get("number", trial.number))


def records_of(trial: FrozenTrial) -> dict[str, dict[str, Any]]:
    """Records of the trials of a configuration, by their names."""
    return {name.removeprefix(RECORD): value for name, value in trial.user_attrs.items() if name.startswith(RECORD)}


def open_study(sweep: Sweep, storage: RDBStorage) -> optuna.Study:
    sampler = sampling.KeyedTPE(sweep.seed) if sweep.method == "bayes" else optuna.samplers.RandomSampler(sweep.seed)
    options: dict[str, Any] = {
        "study_name": sweep.name,
        "storage": storage,
        "sampler": sampler,
        "pruner": pruner(sweep.early_terminate),
    }
    try:
        return optuna.create_study(
            direction="minimize" if sweep.metric.minimize else "maximize", load_if_exists=True, **options
        )
    except (DuplicatedStudyError, sa.exc.IntegrityError):  # made by another worker at the same moment
        return optuna.load_study(**options)
