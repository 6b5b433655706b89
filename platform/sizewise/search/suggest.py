"""The search: which trial is next, and which outcomes the sampler gets. No Ray here.

A *configuration* is one suggestion of the sampler's; its replicates repeat it with other seeds; each of these is
a *trial* with a ledger record of its own. Trials that a study trains as teachers (see `teachers`) come before all
others, and are no configurations. Nothing is held that the ledger does not hold: at every start the
sampler gets the records in order (see `samplers`), interrupted trials are asked for first, and a resumed
search suggests what the uninterrupted one would have.

    search = Search(spec, Ledger(folder), full_bytes)
    record = search.ask()            # written to the ledger as running before it is returned
    search.finish(record.trial_id, evaluations)
"""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna

from sizewise.config import StudySpec
from sizewise.config.trial import TrialConfig
from sizewise.metrics.evaluation import Evaluation, best
from sizewise.metrics.registry import SCORES, column_of
from sizewise.search.curves import Curves
from sizewise.search.limits import Limits
from sizewise.search.space import as_param, configure, points, seed_of
from sizewise.search.teachers import teacher_config
from sizewise.search.teachers import wanted as wanted_teachers
from sizewise.search.with_optuna.samplers import Outcome, Suggester
from sizewise.search.with_optuna.warm_start import Known
from sizewise.store.records import Record
from sizewise.store.trials.ledger import Ledger
from sizewise_core.errors import InputError

# Bytes of a configuration's model, by metric, before it is trained; InputError where there can be no such model.
Sizes = Callable[[TrialConfig], dict[str, int]]
GRID = 20_000  # points of a grid that are counted; a larger one is taken to have no end
LEAST = 1e-9  # of an amount: no card gives 0 seconds
DRAWS = 1000  # infeasible suggestions in a row, after which nothing is taken to be left


class Search:
    """Suggests trials and takes their outcomes."""

    def __init__(
        self,
        spec: StudySpec,
        ledger: Ledger,
        full_bytes: int,
        *,
        sizes: Sizes = lambda config: {},
        known: Sequence[Known] = (),
        window: int | None = None,
    ) -> None:
        self.spec, self.ledger, self.full_bytes, self._sizes = spec, ledger, full_bytes, sizes
        self._limits = Limits(spec.constraints)
        self.records = ledger.records()
        self._points = points(spec, full_bytes, GRID) if spec.sampler == "grid" else GRID
        replicates = spec.replicates
        # Of every configuration
        self._seeds = replicates.seeds if replicates and replicates.of == "all" else 1
        self._suggester = Suggester(
            spec.sampler,
            spec.seed,
            list(spec.objectives.values()),
            lambda trial: configure(spec, trial, full_bytes),
            window,
        )
        for number, trial in enumerate(known, 1):
            self._suggester.add_known_trial(
                -number, trial.params, self._outcome(trial.values, trial.violations)
            )

        self._groups: dict[int, list[Record]] = {}  # closed trials by configuration
        self.set_aside: deque[Record] = deque()  # infeasible suggestions that are not reported yet
        self.replicated: list[list[Record]] = []  # those of several trials
        self.curves = Curves()
        self._due: deque[tuple[int, int]] = deque()  # (configuration, replicate) to train when there is room
        self._interrupted = deque(n for n in sorted(self.records) if self.records[n].state == "running")
        self._teachers = wanted_teachers(spec)
        self._known_teachers = [n for n, r in sorted(self.records.items()) if r.teacher is not None]
        self._suggested = {record.configuration for record in self.records.values() if record.teacher is None}
        self._infeasible = sum(record.state == "infeasible" for record in self.records.values())
        self._open = len(self._interrupted)
        self._open_firsts = sum(_is_first(self.records[n]) for n in self._interrupted)
        self._front_decided = False
        self._free_trial = 0  # none below is free
        # Teachers have the number 0 together, as replicates of each other.
        self._free_configuration = self._first_configuration = int(self._teachers > 0)
        for number in sorted(self.records):
            if self.records[number].state != "running":
                self._account(self.records[number], self._suggester.add_known_trial)
        for configuration, group in self._groups.items():
            if not self._complete(group):  # its next replicate goes on with it
                self._suggester.ask(configuration, group[0].params)

    @property
    def left(self) -> int:
        """Configurations still to suggest."""
        wanted = self.spec.trials
        if self._points < GRID:  # a grid ends, and what is infeasible takes from it
            wanted = min(wanted, self._points - self._infeasible)
        return max(wanted - (len(self._suggested) - self._infeasible), 0)

    @property
    def planned(self) -> int:
        """Trials in all, as far as is known: which replicates the front needs shows only in the end."""
        begun = len(self.records) - self._infeasible
        coming = self._teachers - len(self._known_teachers)
        return (
            begun + coming + self.left * self._seeds + self._open_firsts * (self._seeds - 1) + len(self._due)
        )

    @property
    def teachers(self) -> list[Record]:
        """The trials that are teachers of the others, begun so far."""
        return [self.records[number] for number in self._known_teachers]

    @property
    def remaining(self) -> int:
        """Trials still to run, interrupted ones included, as far as is known."""
        self._replicate_front()
        return self.planned - (len(self.records) - self._infeasible - self._open)

    def ask(self) -> Record | None:
        """The next trial, already in the ledger as running; None when there is none, or none as yet.

        Raises:
            InputError: no configuration within the constraints was found.
        """
        if self._interrupted:
            return self._reopen(self.records[self._interrupted.popleft()])
        if self._teachers:
            begun = self.teachers
            if len(begun) < self._teachers:
                return self._begin(self._teacher(len(begun)))
            if any(record.state == "running" for record in begun):
                return None  # students wait for all of them
        self._replicate_front()
        if self._due:
            return self._replicate(*self._due.popleft())
        return self._configuration() if self.left else None

    def begin_late(self, record: Record) -> Record:
        """A trial that was asked for earlier and begins now: others may have trained its curve since."""
        reuses = self.curves.longest_of(self.config(record))
        return self._write(record.model_copy(update={"reuses": reuses, "started": time.time()}))

    def inherit(self, trial_id: int, epochs: float) -> Record:
        """Keep how much of a trial's curve others had trained when it began."""
        return self._write(self.records[trial_id].model_copy(update={"inherited_epochs": epochs}))

    def again(self, trial_id: int) -> Record:
        """One more attempt at a running trial."""
        known = self.records[trial_id]
        return self._write(known.model_copy(update={"attempts": known.attempts + 1}))

    def lost(self, trial_id: int, reason: str) -> Record:
        """Keep why the present attempt at a trial lost its worker."""
        known = self.records[trial_id]
        return self._write(known.model_copy(update={"lost": {**known.lost, known.attempts: reason}}))

    def config(self, record: Record) -> TrialConfig:
        """The configuration of a record."""
        if record.teacher is not None:
            return TrialConfig.from_flat(record.config)
        asked = optuna.trial.FixedTrial(record.params)
        return configure(self.spec, asked, self.full_bytes, seed_of(self.spec, record.replicate))

    def finish(
        self, trial_id: int, evaluations: Sequence[Evaluation], pruned: str = "", tested: bool | None = None
    ) -> Record:
        """Close a trial that was trained: its best evaluation within the constraints is its outcome.

        Args:
            trial_id: the trial.
            evaluations: all that it had, at least one, in their order.
            pruned: why it was stopped before its end; "" where it was not.
            tested: whether test scores were written.
        """
        row = best([r for r in evaluations if not self._limits.broken(r)] or evaluations)
        measured = {k: float(v) for k, v in row.items() if math.isfinite(v) and k != "replicate"}
        values = measured | {"iterations": float(row["iteration"])}
        undefined = [metric for metric in self.spec.objectives if metric not in values]
        if undefined:
            return self.fail(trial_id, f"{', '.join(undefined)} undefined in every evaluation")
        return self._close(
            trial_id,
            state="pruned" if pruned else "finished",
            reason=pruned or None,
            values=values,
            violations=self._limits.violations(row),
            trained_epochs=evaluations[-1].get("epoch"),
            tested=tested,
        )

    def fail(self, trial_id: int, error: str) -> Record:
        """Close a trial that failed; the sampler learns nothing from it."""
        return self._close(trial_id, state="failed", error=error)

    # -- what is next

    def _reopen(self, record: Record) -> Record:
        if _is_first(record):
            self._suggester.ask(record.configuration, record.params)
        return self.again(record.trial_id)

    def _configuration(self) -> Record | None:
        """The sampler's next suggestion that can be within the constraints; the others are kept in the ledger."""
        for _ in range(DRAWS):
            if not self.left:
                return None
            while self._free_configuration in self._suggested:
                self._free_configuration += 1
            number = self._free_configuration
            place = number - self._first_configuration
            first = self.spec.first_trials[place] if place < len(self.spec.first_trials) else {}
            params = self._suggester.ask(number, {k: as_param(v) for k, v in first.items()})
            self._suggested.add(number)
            record = self._new(number, 0, params)
            problem, violations = self._before_training(self.config(record))
            if not problem:
                return self._begin(record)
            self._suggester.tell(number, Outcome(None, violations))
            self._infeasible += 1
            closed = {"state": "infeasible", "reason": problem, "finished": record.started}
            closed_record = record.model_copy(update={**closed, "violations": violations})
            self.set_aside.append(self._write(closed_record))
        raise InputError(
            f"search: {DRAWS} suggestions in a row cannot be trained (the last one: {problem}): "
            "loosen the constraints or search elsewhere"
        )

    def _replicate(self, configuration: int, replicate: int) -> Record:
        return self._begin(self._new(configuration, replicate, self._groups[configuration][0].params))

    def _new(self, configuration: int, replicate: int, params: Mapping[str, Any]) -> Record:
        while self._free_trial in self.records:
            self._free_trial += 1
        asked = optuna.trial.FixedTrial(dict(params))
        config = configure(self.spec, asked, self.full_bytes, seed_of(self.spec, replicate))
        return Record(
            trial_id=self._free_trial,
            configuration=configuration,
            replicate=replicate,
            state="running",
            key=f"{self._free_trial:04d}-{config.digest()}",
            params=params,
            config=config.flat(),
            reuses=self.curves.longest_of(config),
            started=time.time(),
        )

    def _teacher(self, number: int) -> Record:
        """One of the teachers that the study trains itself."""
        config = teacher_config(self.spec, seed_of(self.spec, number), self.full_bytes)
        while self._free_trial in self.records:
            self._free_trial += 1
        return Record(
            trial_id=self._free_trial,
            configuration=0,
            replicate=number,
            state="running",
            key=f"{self._free_trial:04d}-{config.digest()}",
            params={},
            config=config.flat(),
            teacher=number,
            started=time.time(),
        )

    def _begin(self, record: Record) -> Record:
        self._write(record)
        self._open += 1
        self._open_firsts += _is_first(record)
        if record.teacher is not None:
            self._known_teachers.append(record.trial_id)
        return record

    def _replicate_front(self) -> None:
        """Once every configuration is closed: the replicates of those near the front become due."""
        wanted = self.spec.replicates
        if not wanted or wanted.of == "all" or self._front_decided or self.left or self._open_firsts:
            return
        self._front_decided = True
        for configuration in self._near_front(wanted.within):
            self._enqueue(configuration, wanted.seeds)

    def _near_front(self, within: float) -> list[int]:
        """Configurations whose AUC is at most `within` below the best of no more bytes and iterations."""
        firsts = {number: group[0] for number, group in sorted(self._groups.items())}
        valid = {
            n: r.values
            for n, r in firsts.items()
            if r.values and not any(violation > 0 for violation in r.violations.values())
        }
        costs = [metric for metric, direction in self.spec.objectives.items() if direction == "minimize"]
        points = np.array([[values[metric] for metric in costs] for values in valid.values()])
        aucs = np.array([values["auc"] for values in valid.values()])
        return [
            number
            for index, number in enumerate(valid)
            if aucs[index] >= aucs[(points <= points[index]).all(axis=1)].max() - within
        ]

    def _enqueue(self, configuration: int, seeds: int) -> None:
        there = {
            r.replicate
            for r in self.records.values()
            if r.configuration == configuration and r.teacher is None
        }
        self._due.extend((configuration, replicate) for replicate in range(seeds) if replicate not in there)

    # -- outcomes

    def _close(self, trial_id: int, **changes: Any) -> Record:
        written = {"evaluations": self.ledger.count(trial_id), "finished": time.time()}
        record = self.records[trial_id].model_copy(update={**changes, **written})
        self._write(record)
        self._open -= 1
        self._open_firsts -= _is_first(record)
        self._account(record, lambda number, params, outcome: self._suggester.tell(number, outcome))
        return record

    def _account(self, record: Record, report: Callable[[int, Mapping[str, Any], Outcome], None]) -> None:
        """Take in a closed trial, and `report` the outcome of its configuration when that is known."""
        if record.teacher is not None:
            return
        if record.state == "infeasible":
            report(record.configuration, record.params, Outcome(None, record.violations))
            return
        group = self._groups.setdefault(record.configuration, [])
        group.append(record)
        group.sort(key=lambda r: r.replicate)
        if len(group) == 2:
            self.replicated.append(group)
        if record.trained_epochs is not None:
            self.curves.add(record, self.config(record))
        if record.replicate and self._seeds == 1:
            return  # of the front: the sampler got the configuration's outcome long ago
        if record.replicate == 0 and record.state == "finished" and self._seeds > 1:
            self._enqueue(record.configuration, self._seeds)
        if self._complete(group):
            report(record.configuration, record.params, self._mean_outcome(group))

    def _complete(self, group: list[Record]) -> bool:
        """Whether all seeds of a configuration are in; one that failed or was pruned needs no others."""
        return len(group) >= self._seeds or (group[0].replicate == 0 and group[0].state != "finished")

    def _mean_outcome(self, group: list[Record]) -> Outcome:
        """The mean over a configuration's replicates.

        A pruned trial counts with what it reached: the rule saw a better one at no more bytes and iterations,
        so by these values it is dominated. Optuna's own PRUNED would hide it from GP and NSGA, which look at
        complete trials only and would suggest similar ones again and again.
        """
        trained = [record for record in group if record.values is not None]
        if not trained:
            return Outcome(None, {})
        values = [[r.values[m] for m in self.spec.objectives] for r in trained if r.values]
        # Not those on record: the study file may have been given other constraints since.
        violations = {
            m: float(np.mean([limit.violation((r.values or {}).get(m, math.nan)) for r in trained]))
            for m, limit in self.spec.constraints.items()
        }
        return self._outcome(np.mean(values, axis=0).tolist(), violations)

    def _outcome(self, values: Sequence[float], violations: Mapping[str, float]) -> Outcome:
        """Amounts (bytes, iterations, seconds) in decades, as they are searched and judged.

        Which trial beats which stays the same. But where samplers weigh trials that do not beat each other, by
        volumes and distances, the largest models would count for everything (`python benchmarks/engine.py search`).
        """
        scaled = [
            value if column_of(metric) in SCORES else math.log10(max(value, LEAST))
            for metric, value in zip(self.spec.objectives, values, strict=True)
        ]
        return Outcome(scaled, violations)

    def _before_training(self, config: TrialConfig) -> tuple[str, dict[str, float]]:
        """Why a configuration need not be trained, if its size alone breaks a constraint, and by how much."""
        try:
            sizes = self._sizes(config)
        except InputError as error:
            return str(error), {"size": 1.0}
        problem = self._limits.broken(sizes)
        return problem, self._limits.violations(sizes) if problem else {}

    def _write(self, record: Record) -> Record:
        self.ledger.write(record)  # first: what the disk does not have is not known either
        self.records[record.trial_id] = record
        return record


def _is_first(record: Record) -> bool:
    """Whether a trial is the first of a configuration that the sampler suggested."""
    return record.replicate == 0 and record.teacher is None
