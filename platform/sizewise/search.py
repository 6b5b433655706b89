"""The search: Optuna's sampler over the study file's space, filled from the ledger. No Ray here.

Optuna holds nothing that the ledger does not: at every start its in-memory study is rebuilt from the records, in
order, so trial numbers equal trial ids, finished trials teach the sampler again, and interrupted ones are asked
for first. The sampler is reseeded from (study seed, trial number), so a resumed study suggests what the
uninterrupted one would have suggested.

    search = Search(spec, Ledger(folder))
    record = search.ask()            # written to the ledger as running before it is returned
    search.finish(record.trial_id, evaluations)
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from sizewise.ledger import Ledger, Record
from sizewise.spec import Choices, Range, SizeRange, StudySpec
from sizewise.train import best
from sizewise.trial import TrialConfig

optuna.logging.set_verbosity(optuna.logging.WARNING)


class Search:
    """Asks for configurations and is told how they went."""

    def __init__(self, spec: StudySpec, ledger: Ledger, full_bytes: int) -> None:
        self.spec, self.ledger, self.full_bytes = spec, ledger, full_bytes
        self.records = ledger.records()
        self._trials: dict[int, optuna.Trial] = {}
        self._study = optuna.create_study(
            directions=list(spec.objectives.values()), sampler=ReseedingSampler(spec.sampler, spec.seed)
        )
        # Numbers are given in order, so a gap (a record that was damaged) is asked for again as well.
        for number in range(max(len(spec.first_trials), max(self.records, default=-1) + 1)):
            record = self.records.get(number)
            if record is None or record.state == "running":
                first = spec.first_trials[number] if number < len(spec.first_trials) else {}
                self._study.enqueue_trial(record.params if record else first)
            else:
                self._study.add_trial(self._closed(record))

    @property
    def remaining(self) -> int:
        """Trials still to run, interrupted ones included."""
        return self.spec.trials - sum(r.state != "running" for r in self.records.values())

    def ask(self) -> Record:
        """The next trial, already in the ledger as running."""
        trial = self._study.ask()
        known = self.records.get(trial.number)
        config = configure(self.spec, trial, self.full_bytes)
        record = Record(
            trial_id=trial.number,
            state="running",
            key=f"{trial.number:04d}-{config.digest()}",
            params=trial.params,
            config=config.flat(),
            started=known.started if known else time.time(),
            attempts=known.attempts + 1 if known else 1,
        )
        self._trials[trial.number] = trial
        self._write(record)
        return record

    def again(self, trial_id: int) -> Record:
        """One more attempt at a running trial."""
        known = self.records[trial_id]
        record = known.model_copy(update={"attempts": known.attempts + 1})
        self._write(record)
        return record

    def config(self, record: Record) -> TrialConfig:
        """The configuration of a record."""
        return configure(self.spec, optuna.trial.FixedTrial(record.params), self.full_bytes)

    def finish(self, trial_id: int, evaluations: list[dict[str, Any]]) -> Record:
        """Close a trial that ran to its end: its best evaluation is what it was worth."""
        row = best(evaluations)
        values = {k: float(v) for k, v in row.items() if v == v} | {"iterations": float(row["iteration"])}
        undefined = [metric for metric in self.spec.objectives if metric not in values]
        if undefined:
            return self.fail(trial_id, f"{', '.join(undefined)} undefined in every evaluation")
        self._study.tell(self._trials[trial_id], [values[metric] for metric in self.spec.objectives])
        return self._close(trial_id, state="finished", values=values)

    def fail(self, trial_id: int, error: str) -> Record:
        """Close a trial that failed; the sampler learns nothing from it."""
        self._study.tell(self._trials[trial_id], state=TrialState.FAIL)
        return self._close(trial_id, state="failed", error=error)

    def _close(self, trial_id: int, **changes: Any) -> Record:
        record = self.records[trial_id].model_copy(update={**changes, "finished": time.time()})
        self._write(record)
        return record

    def _write(self, record: Record) -> None:
        self.ledger.write(record)  # first: what the disk does not have is not known either
        self.records[record.trial_id] = record

    def _closed(self, record: Record) -> FrozenTrial:
        """A finished or failed record as Optuna keeps it."""
        values = [record.values[m] for m in self.spec.objectives] if record.values else None
        asked = optuna.trial.FixedTrial(record.params)
        configure(self.spec, asked, self.full_bytes)
        return optuna.trial.create_trial(
            params=record.params,
            distributions=asked.distributions,
            values=values if record.state == "finished" else None,
            state=TrialState.COMPLETE if record.state == "finished" else TrialState.FAIL,
        )


def configure(spec: StudySpec, trial: Any, full_bytes: int) -> TrialConfig:
    """One configuration out of the study's space; options are asked for only where their method was chosen."""

    def pick(name: str, field: Any) -> Any:
        if isinstance(field, Choices):
            return trial.suggest_categorical(name, field.choices)
        if isinstance(field, Range | SizeRange):
            whole = isinstance(field.low, int) and isinstance(field.high, int) and name != "learning_rate"
            suggest = trial.suggest_int if whole else trial.suggest_float
            return suggest(name, field.low, field.high, log=field.log)
        return field

    method = pick("method", spec.embedding.method)
    return TrialConfig(
        data=spec.data,
        dim=spec.model.dim,
        bottom_mlp=spec.model.bottom_mlp,
        top_mlp=spec.model.top_mlp,
        method=method,
        options={name: pick(name, field) for name, field in spec.embedding.options_of(method).items()},
        memory_budget=full_bytes if method == "full" else pick("memory_budget", spec.search.memory_budget),
        learning_rate=pick("learning_rate", spec.search.learning_rate),
        epochs=pick("epochs", spec.search.epochs),
        batch_size=pick("batch_size", spec.train.batch_size),
        optimizer=pick("optimizer", spec.train.optimizer),
        evaluate_every=spec.train.evaluate_every,
        checkpoint_seconds=spec.train.checkpoint_seconds,
        seed=spec.seed,
    )


class ReseedingSampler(BaseSampler):
    """A sampler by name whose random numbers depend on nothing but (seed, trial number)."""

    def __init__(self, name: str, seed: int) -> None:
        self._name, self._seed = name, seed
        self._sampler = self._make(0)

    def _make(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        if self._name == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Reseed: Optuna calls this first for every trial."""
        self._sampler = self._make(trial.number)
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """As the sampler does."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """As the sampler does."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As the sampler does."""
        self._sampler.after_trial(study, trial, state, values)
