"""One study as tables: its trials and their evaluations."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import polars as pl

from sizewise.metrics.registry import METRICS, Direction, asked_columns, columns_of_test
from sizewise.results.columns.constraints import broken, kept
from sizewise.results.columns.cooling import COOLED, cooled_down, with_cooling
from sizewise.results.columns.front import column, nondominated
from sizewise.results.columns.kept_errors import ERRORS, KeptErrors, take_errors
from sizewise.results.columns.replicates import means
from sizewise.results.columns.rounded import split_rounded
from sizewise.results.columns.spread import with_intervals
from sizewise.results.columns.teachers import COLUMNS as TEACHER_COLUMNS
from sizewise.results.columns.teachers import Teachers, teachers_of, with_roles
from sizewise.results.files import checks
from sizewise.results.files.cost import COLUMNS as COST
from sizewise.results.files.cost import cost_table
from sizewise.results.files.finding import driver_state, files_of
from sizewise.store.files import StudyFiles
from sizewise.store.records import StudyRecord, TrialRecord
from sizewise.store.study_folder import StudyFolder
from sizewise.store.trials.curves import read_curves
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, read_end

_UNREAD = "cannot be read: "
_MOST_LOG = 200_000  # bytes of a log; its end says what happened

# a trial's columns besides its configuration; the latter's names give way to these
_TRIAL: dict[str, pl.DataType] = {
    "trial_id": pl.Int64(),
    "configuration": pl.Int64(),
    "replicate": pl.Int64(),
    "state": pl.String(),
    "key": pl.String(),
    "attempts": pl.Int64(),
    "started": pl.Float64(),
    "finished": pl.Float64(),
    "error": pl.String(),
    "reason": pl.String(),
    "reuses": pl.Int64(),
    "trained_epochs": pl.Float64(),
}


def _reserved() -> set[str]:
    """Names that no setting's column has; such a one is called `config_...` instead."""
    ends = ["error", "seed_error", "low", "high"]
    ends += [f"to_{other}{end}" for other in ("best", "baseline") for end in ("", "_low", "_high")]
    intervals = {f"{score}_{end}" for score in ERRORS for end in ends}
    own = {*_TRIAL, *COST, "evaluations", "breaks", *intervals, "replicates", *TEACHER_COLUMNS, COOLED}
    return own | set(columns_of_test().values()) | set(METRICS)


@dataclass(frozen=True)
class Study:
    """One study as read from disk at one moment.

    trials: a row a trial: ledger, configuration, its best evaluation by validation AUC, `evaluations`
      (how many), `test_auc`, and `breaks`, the constraints that this evaluation breaks. Times
      in unix seconds, sizes in bytes.
    evaluations: a row an evaluation, with the trial's state and configuration; all on the validation split. Where the
      learning rate of a trial falls, `cooled_down` says whether it had fallen by then.
    problems: what could not be read, a line each.
    teachers: what its students learn from; None where it has no students.
    rounded: the evaluations again as those of models rounded to the storage in `stored_as`, a row each; with no
      columns where the study has none.
    errors: what the errors of the evaluations' scores are made of; see `intervals`.
    """

    name: str
    folder: Place
    record: StudyRecord
    state: str
    trials: pl.DataFrame
    evaluations: pl.DataFrame
    objectives: dict[str, Direction]
    config_columns: list[str]
    problems: list[str] = field(default_factory=list)
    teachers: Teachers | None = None
    rounded: pl.DataFrame = field(default_factory=pl.DataFrame)
    errors: KeptErrors = field(default_factory=KeptErrors)

    @cached_property
    def candidates(self) -> pl.DataFrame:
        """Evaluations that a choice may fall on: with an AUC and a size, within the study's constraints, of trials
        that have not failed; of a configuration with replicates, their means (see `replicates`). Where the study has
        models rounded, `stored_as` names the storage of each that is, and is null for others. Scores have 95 %
        intervals (see `spread.with_intervals`).
        """
        every = pl.concat([self.evaluations, self.rounded], how="diagonal")
        valid = every.filter(
            pl.col("auc", self.size).is_not_null(), pl.col("state").is_in(["running", "finished", "pruned"])
        )
        averaged = means(valid).filter(kept(self.record.constraints))
        return with_intervals(averaged, self.evaluations, self.errors)

    @cached_property
    def replicates(self) -> pl.DataFrame:
        """A row a configuration that was trained with several seeds, at the iteration of its best mean AUC."""
        several = self.candidates.filter(pl.col("replicates") > 1)
        best = several.sort("auc", "iteration", descending=[True, False]).unique(
            "configuration", keep="first"
        )
        return best.sort("configuration")

    @cached_property
    def front(self) -> pl.DataFrame:
        """The Pareto front over the candidates, smallest models first."""
        return nondominated(self.candidates, self.objectives).sort(self.size, "iteration")

    @cached_property
    def cooled_front(self) -> pl.DataFrame:
        """The front over those candidates whose iterations can be compared: those whose learning rate has fallen.

        The front itself where no trial's rate falls.
        """
        cooled = cooled_down(self.candidates)
        if cooled.height == self.candidates.height:
            return self.front
        return nondominated(cooled, self.objectives).sort(self.size, "iteration")

    @property
    def size(self) -> str:
        """What the study means by size: model_bytes if that is an objective, else embedding_bytes."""
        return "model_bytes" if "model_bytes" in self.objectives else "embedding_bytes"


@dataclass(frozen=True)
class TrialReport:
    """How one trial went: its record, the traceback of its failure, and what could not be read."""

    record: TrialRecord
    traceback: str
    problems: list[str]

    def as_json(self) -> dict[str, object]:
        """The same as one object."""
        fields = self.record.model_dump(exclude={"params", "violations"})
        return {**fields, "traceback": self.traceback, "problems": self.problems}


def trial_report(runs: Place, name: str, trial_id: int) -> TrialReport:
    """How one trial went.

    Args:
        runs: the folder of studies.
        name: the study's.
        trial_id: the trial.

    Raises:
        InputError: no such study or trial, or its record cannot be read.
    """
    files = files_of(runs, name)
    problems = files.problems
    path = files.paths.record(trial_id)
    files.trials = [entry for entry in files.trials if entry.path == path]
    record = next(iter(files.ledger(problems)), None)
    if record is None:
        raise InputError(f"{files.folder}: no trial {trial_id}" + "".join(f"; {line}" for line in problems))
    log = traceback(files.folder, trial_id)
    if log.startswith(_UNREAD):
        problems.append(log)
    return TrialReport(record, log, problems)


def traceback(folder: Place, trial_id: int) -> str:
    """The end of a failed trial's log; empty where there is none, and a line where it cannot be read."""
    path = StudyFolder(folder).traceback(trial_id)
    try:
        text = read_end(path, _MOST_LOG)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{_UNREAD}{path.parent.name}/{path.name} ({error.strerror or error})"
    return text.decode("utf-8", errors="replace").strip()


def load(runs: Place, name: str) -> Study:
    """Read the study `name` under `runs`; InputError if there is none. See `Study` for what is in it."""
    files = files_of(runs, name)
    problems = files.problems
    record = files.facts(problems) or StudyRecord(name=name)
    checks.study(files, record, problems)
    state, _ = driver_state(files, problems)
    objectives = {o: way for o, way in record.objectives.items() if column(o) in METRICS}
    for unknown in record.objectives.keys() - objectives.keys():
        problems.append(
            f"study.json: objectives: evaluations hold no {unknown!r}, so the front leaves it out"
        )

    # In this order: what is read later may have grown since, and then nothing seems to be missing.
    ledger = files.ledger(problems)
    checks.ledger(files, problems)
    counts = checks.counts(files, ledger)
    evaluations = read_curves(files.evaluations, state == "running", problems)
    checks.orphans(files, ledger, state == "running", problems)
    checks.curves(ledger, evaluations, counts, problems)
    evaluations = with_cooling(evaluations.drop(_not_asked(evaluations, record)), ledger)
    evaluations, of_rounded = split_rounded(evaluations)
    numbers = [(t.trial_id, t.trial_id if t.configuration is None else t.configuration) for t in ledger]
    configurations = pl.DataFrame(numbers, {"trial_id": pl.Int64, "configuration": pl.Int64}, orient="row")
    evaluations, of_rounded, errors = take_errors(evaluations, of_rounded, configurations, record.data)
    configs, config_columns = _configs(ledger)
    trials = _trials(ledger, configs, evaluations, _test_scores(files, problems))
    checks.tests(files, ledger, problems)
    held = cost_table(files.folder, record, state == "running", problems)
    trials = trials.join(held, on="trial_id", how="left", maintain_order="left")
    trials = trials.with_columns(broken(record.constraints, trials.columns))
    learned_from = teachers_of(record, ledger, evaluations)
    trials = with_roles(trials, ledger, learned_from)
    of_trial = trials.select("trial_id", "configuration", "state", *config_columns)
    joined = evaluations.join(of_trial, on="trial_id", how="left", maintain_order="left")
    rounded = of_rounded.join(of_trial, on="trial_id", how="left", maintain_order="left")
    return Study(
        name,
        files.folder,
        record,
        state,
        trials,
        joined,
        objectives,
        config_columns,
        problems,
        learned_from,
        rounded if rounded.height else pl.DataFrame(),
        errors,
    )


def fingerprint(runs: Place, name: str) -> str:
    """A text that changes whenever what `load` would read changes; costs a look at the listings only."""
    files = files_of(runs, name)
    state, _ = driver_state(files, [])
    # the driver's heartbeat alone is no news
    listed = [entry for entry in files.all if entry.path.name != files.paths.driver.name]
    seen = hashlib.sha256("\n".join(f"{entry.path} {entry.version}" for entry in listed).encode())
    return f"{state}-{seen.hexdigest()}"


def _configs(ledger: list[TrialRecord]) -> tuple[list[Mapping[str, object]], list[str]]:
    """Each trial's flat configuration, and all columns; lists become JSON text, which any format holds."""
    reserved = _reserved()
    configs = [
        {f"config_{name}" if name in reserved else name: _cell(value) for name, value in trial.config.items()}
        for trial in ledger
    ]
    return list(configs), list(dict.fromkeys(name for config in configs for name in config))


def _cell(value: object) -> object:
    """A setting as a table holds it, whatever its format: lists as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _trials(
    ledger: list[TrialRecord],
    configs: list[Mapping[str, object]],
    evaluations: pl.DataFrame,
    scores: pl.DataFrame,
) -> pl.DataFrame:
    """One row a trial: ledger, configuration, best evaluation, test scores."""
    rows = [trial.model_dump(include=set(_TRIAL)) for trial in ledger]
    trials = pl.DataFrame(rows, schema=_TRIAL, orient="row").with_columns(
        pl.col("configuration").fill_null(pl.col("trial_id"))
    )
    if any(configs):
        columns = pl.DataFrame(configs, infer_schema_length=None, strict=False)
        trials = trials.hstack(columns)

    by_auc = evaluations.sort(
        "auc", "iteration", descending=[True, False], nulls_last=True, maintain_order=True
    )
    best = by_auc.unique("trial_id", keep="first", maintain_order=True)
    # A trial's own count all of it, and every attempt.
    best = best.drop("replicate", "cpu_seconds", "gpu_seconds")
    counts = evaluations.group_by("trial_id").agg(evaluations=pl.len())
    trials = trials.join(best, on="trial_id", how="left", maintain_order="left")
    for extra in (counts, scores):
        trials = trials.join(extra, on="trial_id", how="left", maintain_order="left")
    return trials.with_columns(pl.col("evaluations").fill_null(0))


def _not_asked(evaluations: pl.DataFrame, record: StudyRecord) -> list[str]:
    """Columns of metrics that this study has not asked for."""
    wanted = {column(name) for name in (*record.objectives, *record.constraints)}
    asked = [name for name in asked_columns() if name in evaluations.columns and name not in wanted]
    return [name for name in asked if evaluations[name].is_null().all()]


def _test_scores(files: StudyFiles, problems: list[str]) -> pl.DataFrame:
    names = columns_of_test()
    rows = [(r.trial_id, *(r.scores.get(name) for name in names)) for r in files.test_scores(problems)]
    schema = {"trial_id": pl.Int64(), **dict.fromkeys(names.values(), pl.Float64())}
    scores = pl.DataFrame(rows, schema=schema, orient="row").unique("trial_id", keep="last")
    return scores.drop(_not_asked(scores, StudyRecord()))
