"""How studies stand, quickly: from their ledgers and a few curves.

What is the best model and the smallest near it is that of the study's answer (`answering`): where the ledger does not
settle it, all evaluations are read.
"""

import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Literal, TypedDict

import polars as pl

from sizewise.results.decision import choosing
from sizewise.results.decision.choosing import NEAR, answer_among, best_of, near
from sizewise.results.files import checks
from sizewise.results.files.cost import Cost, cost_of
from sizewise.results.files.finding import driver_state, files_of, names
from sizewise.results.reading import load
from sizewise.results.time_left import seconds_left
from sizewise.store.files import StudyFiles
from sizewise.store.records import StudyRecord, TrialRecord
from sizewise.store.study_folder import file_name
from sizewise.store.trials.curves import read_curves
from sizewise_core.errors import InputError
from sizewise_core.stores.storage import Place, StorageError

log = logging.getLogger(__name__)
Count = Literal["asked", "finished", "pruned", "failed", "infeasible", "running", "waiting"]
COUNTS: tuple[Count, ...] = ("asked", "finished", "pruned", "failed", "infeasible", "running", "waiting")


class Point(TypedDict):
    """One evaluation: whose, its AUC, the bytes of its model, and the storage that this is rounded to, if any."""

    trial_id: int
    iteration: int
    stored_as: str | None
    auc: float
    bytes: float | None


class Status(TypedDict):
    """How a study stands.

    state: "running", "interrupted" (the driver died), "stopped", "finished", "created" (no driver yet) or "unreadable".
    message: the driver's last one.
    trials: by state.
    progress: from 0 to 1.
    seconds_left: null when unknown.
    best_auc: on the validation split, null before anything was evaluated.
    best, smallest: the best model, and the smallest within NEAR of its AUC: those of the study's answer.
    lost: by reason, the trials that lost a worker for it, and continued.
    last_change: unix seconds.
    problems: what could not be read or is missing, as far as this looked.
    """

    name: str
    state: str
    message: str
    trials: dict[Count, int]
    progress: float
    seconds_left: float | None
    best_auc: float | None
    best: Point | None
    smallest: Point | None
    lost: dict[str, list[int]]
    cost: Cost
    last_change: float
    problems: list[str]


def studies(runs: Place) -> pl.DataFrame:
    """A row a study under `runs`, most recently changed first.

    Columns: name, state, asked, finished, pruned, failed, running (trials), progress (0 to 1), seconds_left
    (null when unknown), best_auc (validation), last_change (unix seconds), problems (what could not be read, a line
    each). A study that cannot be read at all has the state "unreadable", and takes none of the others with it.
    """
    rows: list[dict[str, object]] = []
    for name in names(runs):
        now = isolated(name, partial(status, runs, name))
        rows.append(dict(now.items()) | dict(now["trials"].items()))
    schema: dict[str, pl.DataType | type[pl.DataType]] = {"name": pl.String, "state": pl.String}
    schema |= dict.fromkeys(("asked", "finished", "pruned", "failed", "running"), pl.Int64)
    schema |= dict.fromkeys(("progress", "seconds_left", "best_auc", "last_change"), pl.Float64)
    schema["problems"] = pl.List(pl.String)
    return pl.DataFrame(rows, schema=schema, orient="row").sort(
        "last_change", "name", descending=[True, False]
    )


def isolated(name: str, read: Callable[[], Status]) -> Status:
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
    return {
        "name": name,
        "state": "unreadable",
        "message": "",
        "trials": dict.fromkeys(COUNTS, 0),
        "progress": 0.0,
        "seconds_left": None,
        "best_auc": None,
        "best": None,
        "smallest": None,
        "lost": {},
        "cost": {"cpu_seconds": 0.0, "gpu_seconds": 0.0, "money": None, "currency": None},
        "last_change": 0.0,
        "problems": [why],
    }


def status(runs: Place, name: str) -> Status:
    """The state of a study, quickly: this reads the ledger, the curves of running trials and those of a few others.

    Only of a study with replicates, constraints or rounded models are all evaluations read.
    """
    files = files_of(runs, name)
    problems = files.problems
    study = files.facts(problems) or StudyRecord()
    checks.study(files, study, problems)
    state, message = driver_state(files, problems)
    ledger = files.ledger(problems)
    checks.ledger(files, problems)
    by_state = Counter(trial.state for trial in ledger)
    begun = len(ledger) - by_state["infeasible"]
    asked = max(study.trials or 0, begun)
    done = by_state["finished"] + by_state["pruned"] + by_state["failed"]

    running = {file_name("evaluations", t.trial_id) for t in ledger if t.state == "running"}
    known = checks.counts(files, ledger)
    growing = [entry for entry in files.evaluations if entry.path.name in running]
    live = read_curves(growing, state == "running", problems)
    checks.curves([trial for trial in ledger if trial.state == "running"], live, known, problems)
    checks.listed(files, ledger, problems)
    checks.orphans(files, ledger, state == "running", problems)
    best, smallest = _best_points(files, study, ledger, live, state == "running")
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
        "cost": cost_of(files.folder, study, state == "running", problems),
        "last_change": files.last_change,
        "problems": problems,
    }


def _lost(ledger: list[TrialRecord]) -> dict[str, list[int]]:
    """By reason: the trials that lost a worker for it, in order."""
    found: dict[str, list[int]] = {}
    for trial in ledger:
        for reason in dict.fromkeys(trial.lost.values()):
            found.setdefault(reason, []).append(trial.trial_id)
    return found


def _best_points(
    files: StudyFiles, study: StudyRecord, ledger: list[TrialRecord], live: pl.DataFrame, growing: bool
) -> tuple[Point | None, Point | None]:
    """The best model and the smallest near it: those of the study's answer."""
    size = "model_bytes" if "model_bytes" in study.objectives else "embedding_bytes"
    configurations = [t.trial_id if t.configuration is None else t.configuration for t in ledger]
    # Else an answer takes means over seeds, constraints or rounded models, of which the ledger says nothing.
    is_plain = (
        not study.constraints
        and len(set(configurations)) == len(ledger)
        and not any(trial.config.get("also_stored_as") for trial in ledger)
    )
    points = _few_candidates(files, size, ledger, live, growing) if is_plain else None
    if points is None:
        points = load(files.folder.parent, files.folder.name).candidates
    if points.is_empty():
        return None, None
    best = best_of(points, size)
    return _as_point(best), _as_point(answer_among(near(points, NEAR), best, size))


def _as_point(one: choosing.Point) -> Point:
    return {
        "trial_id": one.trial_id,
        "iteration": one.iteration,
        "stored_as": one.stored_as,
        "auc": one.auc,
        "bytes": one.size,
    }


def _few_candidates(
    files: StudyFiles, size: str, ledger: list[TrialRecord], live: pl.DataFrame, growing: bool
) -> pl.DataFrame | None:
    """The candidates of those trials among which the best model and the smallest near it are.

    A trial's models are all of one size, so that its best evaluation says whether one is near. None where evaluations
    are not what the ledger says of them.
    """
    ended = [t for t in ledger if t.state in ("finished", "pruned") and t.values]
    best = {t.trial_id: ((t.values or {}).get("auc"), (t.values or {}).get(size)) for t in ended}
    for trial, auc, at in live.sort("auc").select("trial_id", "auc", size).iter_rows():
        best[trial] = auc, at
    known = {trial: (auc, at) for trial, (auc, at) in best.items() if auc is not None and at is not None}
    if not known:
        return None if ledger else live
    highest = max(auc for auc, _ in known.values())
    within = {
        trial: (auc, at) for trial, (auc, at) in known.items() if auc >= highest - NEAR - choosing.EPSILON
    }
    least = min(at for _, at in within.values())
    wanted = {file_name("evaluations", t) for t, (auc, at) in within.items() if auc == highest or at == least}
    curves = read_curves([entry for entry in files.evaluations if entry.path.name in wanted], growing, [])
    points = curves.drop_nulls(["auc", size]).with_columns(configuration="trial_id")
    is_so = not points.is_empty() and (points["auc"].max(), near(points, NEAR)[size].min()) == (
        highest,
        least,
    )
    return points if is_so else None
