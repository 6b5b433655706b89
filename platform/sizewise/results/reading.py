"""A runs folder: which studies there are, how they stand, and one study as tables."""

import hashlib
import json
import logging
import math
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import polars as pl
import psutil

from sizewise.metrics.registry import METRICS
from sizewise.results import checks
from sizewise.results.constraints import broken, kept
from sizewise.results.front import column, nondominated
from sizewise.results.replicates import means
from sizewise.results.teachers import COLUMNS as TEACHER_COLUMNS
from sizewise.results.teachers import Teachers, teachers_of, with_roles
from sizewise.results.time_left import seconds_left
from sizewise.store.curves import read_curves
from sizewise.store.files import StudyFiles
from sizewise.store.heartbeat import drives, lives, machine
from sizewise.store.ledger import NAME
from sizewise.store.records import Direction, DriverRecord, StudyRecord, TestRecord, TrialRecord
from sizewise.store.usage import last_seen, used
from sizewise_core.errors import InputError
from sizewise_core.storage import Entry, Place, StorageError, entries, exists, is_folder, is_link, read_end

log = logging.getLogger(__name__)
_NAMED = 8  # studies that a message names
_UNREAD = "cannot be read: "
_MOST_LOG = 200_000  # bytes of a log; its end says what happened
NEAR = 0.002  # differences of AUC that people call small: a tenth of what a thousandfold compression costs
STALE_SECONDS = 30.0  # a driver writes its beat every few seconds; one this old has died, or its clock is off
_DEAD: set[tuple[Place, float]] = set()  # heartbeats that were watched, and had stopped

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
_USED = {"cpu_seconds": pl.Float64(), "gpu_seconds": pl.Float64(), "money": pl.Float64()}
_RESERVED = {*_TRIAL, *_USED, "evaluations", "test_auc", "test_logloss", "test_normalized_entropy"}
_RESERVED |= {"breaks", "auc_low", "auc_high", "replicates", *TEACHER_COLUMNS}


@dataclass(frozen=True)
class Study:
    """One study as read from disk at one moment.

    trials: a row a trial: ledger, configuration, its best evaluation by validation AUC, `evaluations`
      (how many), `test_auc`, and `breaks`, the constraints that this evaluation breaks. Times
      in unix seconds, sizes in bytes.
    evaluations: a row an evaluation, with the trial's state and configuration; all on the validation split.
    problems: what could not be read, a line each.
    teachers: what its students learn from; None where it has no students.
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

    @cached_property
    def candidates(self) -> pl.DataFrame:
        """Evaluations that a choice may fall on: with an AUC and a size, within the study's constraints, of trials
        that have not failed; of a configuration with replicates, their means (see `replicates`).
        """
        valid = self.evaluations.filter(
            pl.col("auc", self.size).is_not_null(), pl.col("state").is_in(["running", "finished", "pruned"])
        )
        return means(valid).filter(kept(self.record.constraints))

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

    @property
    def size(self) -> str:
        """What the study means by size: model_bytes if that is an objective, else embedding_bytes."""
        return "model_bytes" if "model_bytes" in self.objectives else "embedding_bytes"


def studies(runs: Place) -> pl.DataFrame:
    """A row a study under `runs`, most recently changed first.

    Columns: name, state, asked, finished, pruned, failed, running (trials), progress (0 to 1), seconds_left
    (null when unknown), best_auc (validation), last_change (unix seconds), problems (what could not be read, a line
    each). A study that cannot be read at all has the state "unreadable", and takes none of the others with it.
    """
    rows = []
    for name in names(runs):
        now = isolated(name, partial(status, runs, name))
        rows.append({**now, **now["trials"]})
    schema: dict[str, Any] = {"name": pl.String, "state": pl.String}
    schema |= dict.fromkeys(("asked", "finished", "pruned", "failed", "running"), pl.Int64)
    schema |= dict.fromkeys(("progress", "seconds_left", "best_auc", "last_change"), pl.Float64)
    schema["problems"] = pl.List(pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row").sort(
        "last_change", "name", descending=[True, False]
    )


def isolated(name: str, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `read` returns for a study, or a row that says why it cannot be read, so that one study does not end a list.

    Raises:
        StorageError: what holds them all cannot be reached.
    """
    try:
        return read()
    except StorageError:
        raise
    except InputError as error:
        why = str(error)
    except OSError as error:
        why = f"{error.filename or name}: {error.strerror or error}"
    except Exception as error:  # whatever somebody made of its files, the other studies are fine
        log.debug("study %s", name, exc_info=True)
        why = f"{name}: cannot be read ({type(error).__name__}: {error!s:.200})"
    counts = ("asked", "finished", "pruned", "failed", "infeasible", "running", "waiting")
    cost = {"cpu_seconds": 0.0, "gpu_seconds": 0.0, "money": None, "currency": None}
    nothing = dict.fromkeys(("seconds_left", "best_auc", "best", "smallest"))
    return {
        "name": name,
        "state": "unreadable",
        "message": "",
        "trials": dict.fromkeys(counts, 0),
        "progress": 0.0,
    } | {
        **nothing,
        "lost": {},
        "cost": cost,
        "last_change": 0.0,
        "problems": [why],
    }


def status(runs: Place, name: str) -> dict[str, Any]:
    """The state of a study, quickly: this reads the ledger and the curves of running trials only.

    Keys: name, state, message, trials (by state), progress, seconds_left, best_auc, best and smallest (trial_id,
    auc and bytes: the best trial, and the smallest within NEAR of its AUC, null before anything was evaluated), lost
    (by reason: the trials that lost a worker for it, and continued), cost
    (cpu_seconds and gpu_seconds held by trials so far, all attempts counted, and money in currency, null without
    prices), last_change, problems (what could not be read or is missing, as far as this looked); state is "running",
    "interrupted" (the driver died), "stopped", "finished" or "created" (no driver yet).
    """
    files = _files(runs, name)
    problems = files.problems
    study = files.record("study.json", StudyRecord, problems) or StudyRecord()
    checks.study(files, study, problems)
    state, message = _driver_state(files, problems)
    ledger = files.records("trials", TrialRecord, problems)
    checks.ledger(files, problems)
    by_state = Counter(trial.state for trial in ledger)
    begun = len(ledger) - by_state["infeasible"]
    asked = max(study.trials or 0, begun)
    done = by_state["finished"] + by_state["pruned"] + by_state["failed"]

    running = {f"{t.trial_id:04d}.jsonl" for t in ledger if t.state == "running"}
    known = checks.counts(files, ledger)
    growing = [entry for entry in files.evaluations if entry.path.name in running]
    live = read_curves(growing, state == "running", problems)
    checks.curves([trial for trial in ledger if trial.state == "running"], live, known, problems)
    checks.listed(files, ledger, problems)
    checks.orphans(files, ledger, state == "running", problems)
    best, smallest = _best_points(study, ledger, live)
    return {
        "name": name,
        "state": state,
        "message": message,
        "trials": {
            "asked": asked,
            "finished": by_state["finished"],
            "pruned": by_state["pruned"],
            "failed": by_state["failed"],
            "infeasible": by_state["infeasible"],
            "running": by_state["running"],
            "waiting": asked - begun,
        },
        "progress": done / asked if asked else 0.0,
        "seconds_left": seconds_left(files.folder, ledger, live, asked) if state == "running" else None,
        "best_auc": best["auc"] if best else None,
        "best": best,
        "smallest": smallest,
        "lost": _lost(ledger),
        "cost": _cost(files.folder, study, state == "running", problems),
        "last_change": files.last_change,
        "problems": problems,
    }


def trial_report(runs: Place, name: str, trial_id: int) -> dict[str, Any]:
    """How one trial went: its ledger record's fields, `traceback`, empty where it has none, and `problems`.

    Raises:
        InputError: no such study or trial, or its record cannot be read.
    """
    files = _files(runs, name)
    problems = files.problems
    path = files.folder / "trials" / f"{trial_id:04d}.json"
    files.trials = [entry for entry in files.trials if entry.path == path]
    record = next(iter(files.records("trials", TrialRecord, problems)), None)
    if record is None:
        raise InputError(f"{files.folder}: no trial {trial_id}" + "".join(f"; {line}" for line in problems))
    log = traceback(files.folder, trial_id)
    if log.startswith(_UNREAD):
        problems.append(log)
    return {**record.model_dump(), "traceback": log, "problems": problems}


def traceback(folder: Place, trial_id: int) -> str:
    """The end of a failed trial's log; empty where there is none, and a line where it cannot be read."""
    try:
        text = read_end(folder / "logs" / f"{trial_id:04d}.txt", _MOST_LOG)
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f"{_UNREAD}logs/{trial_id:04d}.txt ({error.strerror or error})"
    return text.decode("utf-8", errors="replace").strip()


def load(runs: Place, name: str) -> Study:
    """Read the study `name` under `runs`; InputError if there is none. See `Study` for what is in it."""
    files = _files(runs, name)
    problems = files.problems
    record = files.record("study.json", StudyRecord, problems) or StudyRecord(name=name)
    checks.study(files, record, problems)
    state, _ = _driver_state(files, problems)
    objectives = {o: way for o, way in record.objectives.items() if column(o) in METRICS}
    for unknown in record.objectives.keys() - objectives.keys():
        problems.append(
            f"study.json: objectives: evaluations hold no {unknown!r}, so the front leaves it out"
        )

    # In this order: what is read later may have grown since, and then nothing seems to be missing.
    ledger = files.records("trials", TrialRecord, problems)
    checks.ledger(files, problems)
    counts = checks.counts(files, ledger)
    evaluations = read_curves(files.evaluations, state == "running", problems)
    checks.orphans(files, ledger, state == "running", problems)
    checks.curves(ledger, evaluations, counts, problems)
    configs, config_columns = _configs(ledger)
    trials = _trials(ledger, configs, evaluations, _test_scores(files, problems))
    checks.tests(files, ledger, problems)
    held = _used(files.folder, record, state == "running", problems)
    trials = trials.join(held, on="trial_id", how="left", maintain_order="left")
    trials = trials.with_columns(broken(record.constraints, trials.columns))
    learned_from = teachers_of(record, ledger, evaluations)
    trials = with_roles(trials, ledger, learned_from)
    of_trial = trials.select("trial_id", "configuration", "state", *config_columns)
    joined = evaluations.join(of_trial, on="trial_id", how="left", maintain_order="left")
    return Study(
        name, files.folder, record, state, trials, joined, objectives, config_columns, problems, learned_from
    )


def fingerprint(runs: Place, name: str) -> str:
    """A text that changes whenever what `load` would read changes; costs a look at the listings only."""
    files = _files(runs, name)
    state, _ = _driver_state(files, [])
    # the driver's heartbeat alone is no news
    listed = [entry for entry in files.all if entry.path.name != "driver.json"]
    seen = hashlib.sha256("\n".join(f"{entry.path} {entry.version}" for entry in listed).encode())
    return f"{state}-{seen.hexdigest()}"


def names(runs: Place) -> list[str]:
    """The studies under `runs`, in order of name; InputError if there is no such folder."""
    try:
        listed = entries(runs, links=True)
    except StorageError:
        raise
    except OSError as error:
        raise InputError(f"{runs}: cannot be read ({error.strerror or error})") from None
    if not listed and not is_folder(runs):
        raise InputError(f"{runs}: no such folder; --runs names the folder that holds the studies")
    return [e.path.name for e in listed if NAME.fullmatch(e.path.name) and _looks_like_study(e)]


def _looks_like_study(entry: Entry) -> bool:
    """Whether it is a study's folder, or may be one: a study that cannot be read is listed with its problem."""
    if is_link(entry.path):
        return exists(entry.path / "study.yaml") or exists(entry.path / "study.json")
    try:
        return entry.is_folder and StudyFiles(entry.path).is_study
    except StorageError:
        raise
    except OSError:
        return True


def _files(runs: Place, name: str) -> StudyFiles:
    """The study's files. A name has no dot and no slash, so nothing outside `runs` is reached.

    `runs` may be a link, for its user has named it. A study in it may not: it may have come with a received folder,
    and lead to a study that was not sent.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"study name {name:.80}: use letters, digits, - and _ only, at most 255 of them")
    files = StudyFiles(runs / name)
    if is_link(files.folder):
        raise InputError(
            f"{files.folder}: is a link, which is not followed: use --runs with the folder that it is in"
        )
    try:
        found = files.is_study
    except StorageError:
        raise
    except OSError as error:
        raise InputError(f"{files.folder}: cannot be read ({error.strerror or error})") from None
    if not found:
        known = names(runs)
        more = f" and {len(known) - _NAMED:,} more" if len(known) > _NAMED else ""
        there = (
            f"studies there: {', '.join(known[:_NAMED])}{more}" if known else "there are no studies there yet"
        )
        raise InputError(f"{runs / name}: no such study; {there}")
    return files


def _driver_state(files: StudyFiles, problems: list[str]) -> tuple[str, str]:
    """State of the study and the driver's last message."""
    if "driver.json" not in files:
        return "created", ""
    driver = files.record("driver.json", DriverRecord, problems)
    if driver is None:
        return "interrupted", ""
    if driver.state != "running":
        return driver.state, driver.message
    return ("running" if _alive(files.folder / "driver.json", driver) else "interrupted"), driver.message


def _alive(path: Place, driver: DriverRecord) -> bool:
    """Whether the driver lives. Only where its machine cannot be asked do two clocks have to agree, or time pass."""
    if driver.machine and driver.machine == machine():
        return drives(path.parent, driver.model_dump())
    fresh = abs(time.time() - driver.beat) < STALE_SECONDS
    if driver.host == socket.gethostname():
        return fresh and (bool(driver.machine) or psutil.pid_exists(driver.pid))
    if fresh or (path, driver.beat) in _DEAD:
        return fresh
    if lives(path, driver.model_dump()):  # its clock is not ours, but its heart beats
        return True
    _DEAD.add((path, driver.beat))
    return False


def _used(folder: Place, study: StudyRecord, growing: bool, problems: list[str]) -> pl.DataFrame:
    """What each trial has used so far: cpu_seconds, gpu_seconds, money."""
    rows = [
        (trial_id, cpu, gpu, study.prices.of(cpu, gpu) if study.prices else None)
        for trial_id, (_, cpu, gpu) in used(folder, last_seen(folder), problems, growing).items()
    ]
    return pl.DataFrame(rows, schema={"trial_id": pl.Int64(), **_USED}, orient="row")


def _cost(folder: Place, study: StudyRecord, growing: bool, problems: list[str]) -> dict[str, Any]:
    """What the whole study has used so far."""
    total = (
        _used(folder, study, growing, problems).select("cpu_seconds", "gpu_seconds").sum().row(0, named=True)
    )
    money = study.prices.of(**total) if study.prices else None
    return {**total, "money": money, "currency": study.prices.currency if study.prices else None}


def _lost(ledger: list[TrialRecord]) -> dict[str, list[int]]:
    """By reason: the trials that lost a worker for it, in order."""
    found: dict[str, list[int]] = {}
    for trial in ledger:
        for reason in dict.fromkeys(trial.lost.values()):
            found.setdefault(reason, []).append(trial.trial_id)
    return found


def _best_points(
    study: StudyRecord, ledger: list[TrialRecord], live: pl.DataFrame
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The best trial by AUC, and the smallest within NEAR of it, by what the ledger and running trials hold."""
    size = "model_bytes" if "model_bytes" in study.objectives else "embedding_bytes"
    ended = [(t.trial_id, t.values.get("auc"), t.values.get(size)) for t in ledger if t.values]
    points = [*ended, *live.select("trial_id", "auc", size).iter_rows()]
    rows = [{"trial_id": trial, "auc": auc, "bytes": at} for trial, auc, at in points if auc is not None]
    if not rows:
        return None, None
    best = min(rows, key=lambda row: (-row["auc"], row["bytes"] or math.inf))
    near = [row for row in rows if row["bytes"] is not None and row["auc"] >= best["auc"] - NEAR]
    return best, min(near, key=lambda row: (row["bytes"], -row["auc"]), default=None)


def _configs(ledger: list[TrialRecord]) -> tuple[list[dict[str, Any]], list[str]]:
    """Each trial's flat configuration, and all columns; lists become JSON text, which any format holds."""
    configs = []
    for trial in ledger:
        flat = {}
        for name, value in trial.config.items():
            flat[f"config_{name}" if name in _RESERVED or name in METRICS else name] = _cell(value)
        configs.append(flat)
    return configs, list(dict.fromkeys(name for config in configs for name in config))


def _cell(value: Any) -> Any:
    """A setting as a table holds it, whatever its format: lists as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _trials(
    ledger: list[TrialRecord],
    configs: list[dict[str, Any]],
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
    best = best.drop(
        "replicate", "cpu_seconds", "gpu_seconds"
    )  # a trial's own count all of it, and every attempt
    counts = evaluations.group_by("trial_id").agg(evaluations=pl.len())
    trials = trials.join(best, on="trial_id", how="left", maintain_order="left")
    for extra in (counts, scores):
        trials = trials.join(extra, on="trial_id", how="left", maintain_order="left")
    return trials.with_columns(pl.col("evaluations").fill_null(0))


def _test_scores(files: StudyFiles, problems: list[str]) -> pl.DataFrame:
    records = files.records("test", TestRecord, problems)
    rows = [(r.trial_id, r.auc, r.logloss, r.normalized_entropy) for r in records]
    schema = {"trial_id": pl.Int64, "test_auc": pl.Float64, "test_logloss": pl.Float64}
    schema |= {"test_normalized_entropy": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row").unique("trial_id", keep="last")
